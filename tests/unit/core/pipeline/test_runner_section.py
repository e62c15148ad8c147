"""`runner:`, `job:` and `migration:`: what they become in the plan, and every mistake in words."""

from __future__ import annotations

import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import resolve
from forge.model.errors import InvalidConfiguration
from forge.model.migrations import Migration
from forge.model.plan import JobPlan, Plan

STEP = "{run: make}"


def planned(text: str) -> Plan:
    return resolve(Sources(read(text, "pipeline.yaml")), {})


def job(runner: str = "", *, defaults: str = "{}", step: str = STEP, more: str = "") -> JobPlan:
    line = f"\n    runner: {runner}" if runner else ""
    return planned(f"defaults: {defaults}\njobs:\n  build:{line}{more}\n    steps: [{step}]\n").job("build")


def problem(*args: str, **fields: str) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        job(*args, **fields)
    return " | ".join(f"{one.message} ({one.hint})" for one in raised.value.diagnostics)


class TestRunner:
    def test_commands_run_on_the_workers_machine_unless_told_otherwise(self) -> None:
        assert (job().runner, job().runner_config) == ("process", {})
        assert job("process").runner == "process"

    def test_an_image_is_enough(self) -> None:
        found = job("{kubernetes: 'debian:12'}")
        assert (found.runner, found.runner_config) == ("kubernetes", {"image": "debian:12"})

    def test_what_defaults_say_of_the_same_runner_holds_where_the_job_does_not(self) -> None:
        defaults = "{runner: {kubernetes: {image: 'debian:12', context: build, resources: {cpu: 1}}}}"
        found = job("{kubernetes: {image: 'python:3.12', resources: {memory: 1Gi}}}", defaults=defaults)
        assert found.runner_config["image"] == "python:3.12"
        assert found.runner_config["access"] == {"kubeconfig": "", "context": "build", "namespace": ""} or (
            found.runner_config["access"] == {"context": "build"}
        )
        assert found.runner_config["limits"] == {"memory": "1Gi"}
        assert job("kubernetes", defaults=defaults).runner_config["image"] == "debian:12"
        assert job(defaults=defaults).runner == "kubernetes"

    def test_a_job_may_stay_on_the_machine_all_the_same(self) -> None:
        found = job("process", defaults="{runner: {kubernetes: 'debian:12'}}")
        assert (found.runner, found.runner_config) == ("process", {})

    def test_a_templates_runner_is_its_jobs(self) -> None:
        text = (
            "defaults: {runner: {kubernetes: {image: a, context: c}}}\n"
            "templates: {t: {runner: {kubernetes: {image: b}}, steps: [{run: make}]}}\n"
            "jobs: {one: {template: t}, two: {template: t, runner: process}}\n"
        )
        found = planned(text)
        assert found.job("one").runner_config["image"] == "b"
        assert found.job("one").runner_config["access"] == {"context": "c"}
        assert found.job("two").runner == "process"

    def test_everything_that_may_be_set(self) -> None:
        config = job(
            "{kubernetes: {image: x, resources: {cpu: 500m, memory: 1Gi, limits: {cpu: 2}}, service_account: b, "
            "node_selector: {disk: fast}, tolerations: [gpu, {key: zone, value: b}], env_from: {secrets: s, config_maps: "
            "[c]}, pull_secrets: p, user: 1000, workspace: {claim: builds, root: /srv, mount: /w}, start_timeout: 2m}}"
        ).runner_config
        assert config["requests"] == {"cpu": "500m", "memory": "1Gi"}
        assert config["limits"] == {"cpu": "2", "memory": "1Gi"}
        assert config["tolerations"] == [
            {"key": "gpu", "operator": "Exists", "value": "", "effect": ""},
            {"key": "zone", "operator": "Equal", "value": "b", "effect": ""},
        ]
        assert (config["env_secrets"], config["env_config_maps"], config["pull_secrets"]) == (["s"], ["c"], ["p"])
        assert (config["claim"], config["root"], config["mount"], config["host_path"]) == ("builds", "/srv", "/w", "")
        assert (config["user"], config["start_timeout"]) == (1000, 120.0)

    @pytest.mark.parametrize(
        ("runner", "words"),
        [
            ("kubernets", "did you mean `kubernetes`"),
            ("docker", "known: `kubernetes`, `process`"),
            ("kubernetes", "`build` runs in pods, but of no image"),
            ("{kubernetes: {image: x}, process: {}}", "must be one runner"),
            ("{kubernetes: {imag: x}}", "image"),
            ("{kubernetes: {image: x, workspace: {claim: a, host_path: /b}}}", "has both `claim` and `host_path`"),
            ("{kubernetes: {image: x, workspace: {claim: a}}}", "has a `claim` but no `root`"),
            ("{kubernetes: {image: x, workspace: {root: /a}}}", "has a `root` but no `claim`"),
            ("{kubernetes: {image: x, workspace: {host_path: a/b}}}", "must be an absolute path"),
            ("{kubernetes: {image: x, workspace: {mount: /a/../b}}}", "must be an absolute path"),
            ("{kubernetes: {image: x, node_selector: [a]}}", "must be a mapping of names to texts"),
            ("3", "must be a name or a mapping"),
        ],
    )
    def test_mistakes_are_told_before_anything_starts(self, runner: str, words: str) -> None:
        assert words in problem(runner)

    def test_an_image_may_have_expressions_of_what_is_there_and_of_nothing_else(self) -> None:
        text = "parameters: {tag: v1}\njobs: {b: {runner: {kubernetes: 'x:${{ params.%s }}'}, steps: [{run: make}]}}\n"
        assert planned(text % "tag").job("b").runner_config["image"] == "x:${{ params.tag }}"
        with pytest.raises(InvalidConfiguration) as raised:
            planned(text % "tga")
        assert "there is no `params.tga`" in str([one.message for one in raised.value.diagnostics])


class TestJobStep:
    def test_a_manifest_is_enough(self) -> None:
        (step,) = job(step="{job: k8s/migrate.yaml}").steps
        assert (step.kind, step.name, step.config["manifest"]) == ("job", "job k8s/migrate.yaml", "k8s/migrate.yaml")
        assert (step.config["keep"], step.config["environment"]) == ("failed", "")

    def test_a_cluster_may_be_named(self) -> None:
        (step,) = job(step="{job: {manifest: m.yaml, context: prod, namespace: shop, keep: always}}").steps
        assert step.config["access"] == {"kubeconfig": "", "context": "prod", "namespace": "shop"}
        assert step.config["keep"] == "always"

    @pytest.mark.parametrize(
        ("step", "words"),
        [
            ("{job: {manifest: ../m.yaml}}", "manifest"),
            ("{job: {environment: production}}", "manifest"),
            (
                "{job: {manifest: m.yaml, environment: p, context: c}}",
                "has both `environment` and a cluster of its own",
            ),
            ("{job: {manifest: m.yaml, environment: nowhere}}", "there is no environment `nowhere`"),
            ("{job: {manifest: m.yaml, keep: maybe}}", "keep"),
        ],
    )
    def test_mistakes_are_told_before_anything_starts(self, step: str, words: str) -> None:
        assert words in problem(step=step)

    def test_a_local_environment_has_no_jobs(self) -> None:
        text = (
            "environments: {here: {target: {local: {command: serve}}}}\n"
            "jobs: {b: {steps: [{job: {manifest: m.yaml, environment: here}}]}}\n"
        )
        with pytest.raises(InvalidConfiguration) as raised:
            planned(text)
        (told,) = raised.value.diagnostics
        assert told.message == "`here` is no cluster but a local target, so no Job can run in it"


class TestMigration:
    WHERE = "\n    environment: production"

    def migrating(self, migration: str, kind: str = "run: make", more: str = WHERE) -> Migration | None:
        text = (
            "environments: {production: {target: {local: {command: serve}}}}\n"
            f"jobs:\n  b:{more}\n    steps: [{{{kind}, migration: {migration}}}]\n"
        )
        return planned(text).job("b").steps[0].migration

    def refused(self, migration: str, **fields: str) -> str:
        with pytest.raises(InvalidConfiguration) as raised:
            self.migrating(migration, **fields)
        return " | ".join(f"{one.message} ({one.hint})" for one in raised.value.diagnostics)

    def test_the_forms(self) -> None:
        assert self.migrating("expand") == Migration("expand", "")
        assert self.migrating('{contract: "1.4"}') == Migration("contract", "", "1.4")
        assert self.migrating("{contract: {since: 1.4.2}, environment: production}", more="") == Migration(
            "contract", "production", "1.4.2"
        )
        assert self.migrating("{expand: {}}", kind="job: m.yaml") == Migration("expand", "")

    def test_a_contract_says_which_versions_still_run(self) -> None:
        assert "is a `contract` without `since`" in self.refused("contract")
        assert "since" in self.refused("{contract: {}}")

    def test_it_is_of_an_environment_that_is_there(self) -> None:
        assert "this migration is of no environment" in self.refused("expand", more="")
        assert "there is no environment `prod`" in self.refused("{expand: {}, environment: prod}")

    def test_only_what_does_something_can_be_one(self) -> None:
        assert "only `run` and `job` steps can be migrations" in self.refused("expand", kind="publish: a")
        assert "must be either `expand` or `contract`" in self.refused("{expand: {}, contract: '1'}")
        assert "cannot be" in self.refused("shrink")

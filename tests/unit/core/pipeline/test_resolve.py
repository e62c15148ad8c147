"""What every line of a pipeline becomes in the plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose, resolve
from forge.model import configs
from forge.model.errors import InvalidConfiguration
from forge.model.plan import Approval, Concurrency, JobPlan, Parameter, Plan, Retry, SecretReference, Source, StepPlan
from forge.model.strategy import Adaptive, HarmBudget, Strategy, StrategyStep, Threshold
from forge.model.traffic import Route

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline"


def plan(text: str, parameters: dict[str, Any] | None = None) -> Plan:
    return resolve(Sources(read(text, "forge/pipeline.yaml")), parameters)


def job(body: str, top: str = "") -> JobPlan:
    indented = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    steps = "" if "steps:" in body or "template:" in body else "\n    steps: [{run: make}]"
    return plan(f"{top}\njobs:\n  it:\n{indented}{steps}\n").job("it")


def step(line: str, top: str = "") -> StepPlan:
    return plan(f"{top}\njobs:\n  it:\n    steps:\n      - {line}\n").jobs[0].steps[0]


def config(line: str, kind: Any, top: str = "") -> Any:
    return msgspec.convert(step(line, top).config, kind)


def messages(text: str, parameters: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(InvalidConfiguration) as wrong:
        plan(text, parameters)
    return [one.message for one in wrong.value.diagnostics]


STAGING = "environments: {staging: {target: {local: {command: run}}}}"
PUBLISHED = "environments: {p: {target: {local: {command: run}}}}\njobs:\n  b: {steps: [{publish: app}]}\n"


# the seed


def test_the_seeds_pipeline_is_valid_unchanged():
    text = (GOLDEN / "seed.yaml").read_text()
    assert diagnose(Sources(read(text, "forge/pipeline.yaml"))) == []
    assert [one.name for one in plan(text).jobs] == ["build_and_test", "deploy_staging", "deploy_production"]


def test_the_seeds_plan_is_pinned():
    found = plan((GOLDEN / "seed.yaml").read_text())
    recorded = (GOLDEN / "seed.plan.json").read_bytes()
    assert msgspec.json.decode(msgspec.json.encode(found)) == msgspec.json.decode(recorded)


def test_the_seed_has_its_lines_word_for_word():
    """The golden file is the seed with indentation restored, and nothing else."""
    lines = [line.strip() for line in (GOLDEN / "seed.yaml").read_text().splitlines() if line.strip()]
    assert lines == [
        "# forge/pipeline.yaml",
        "jobs:",
        "build_and_test:",
        "steps:",
        "- checkout: .",
        "- run: make build",
        "- run: make test",
        "- publish:",
        "artefact: myapp.tar.gz",
        "deploy_staging:",
        "depends_on: build_and_test",
        "steps:",
        "- download: myapp.tar.gz",
        "- run: |",
        "kubectl apply -f k8s/staging/deployment.yaml",
        "kubectl rollout status deployment/myapp-staging",
        "deploy_production:",
        "depends_on: deploy_staging",
        "trigger: manual",
        "steps:",
        "- download: myapp.tar.gz",
        "- run: |",
        "kubectl apply -f k8s/production/deployment.yaml",
        "kubectl rollout status deployment/myapp-production",
    ]


def test_a_plan_comes_back_from_its_stored_form_the_same():
    found = plan((GOLDEN / "full.yaml").read_text(), {"tag": "v2"})
    again = msgspec.json.decode(msgspec.json.encode(found), type=Plan)
    assert again == found
    assert again.digest == found.digest


def test_the_full_languages_plan_is_pinned():
    found = plan((GOLDEN / "full.yaml").read_text(), {"tag": "v2"})
    golden = GOLDEN / "full.plan.json"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        golden.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    assert msgspec.json.decode(msgspec.json.encode(found)) == msgspec.json.decode(golden.read_bytes())


def test_the_same_input_has_the_same_digest_and_another_has_another():
    text = (GOLDEN / "full.yaml").read_text()
    digests = {plan(text, {"tag": "v2"}).digest for _ in range(3)}
    assert len(digests) == 1
    assert plan(text, {"tag": "v3"}).digest not in digests
    other = resolve(Sources(read(text, "forge/pipeline.yaml")), {"tag": "v2"}, Source("abc"))
    assert other.digest not in digests


def test_comments_and_blank_lines_do_not_change_what_runs():
    first = plan("jobs:\n  a:\n    steps: [{run: x}]\n")
    second = plan("jobs:\n  a:\n    steps: [{run: x}] # the same line\n")
    assert first.digest == second.digest


# steps


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("checkout: .", configs.CheckoutConfig()),
        ("checkout: libs/shared", configs.CheckoutConfig("libs/shared")),
        ("checkout: https://example.org/x.git", configs.CheckoutConfig(repository="https://example.org/x.git")),
        ("checkout: git@example.org:x/y.git", configs.CheckoutConfig(repository="git@example.org:x/y.git")),
        ("checkout: {path: ., into: src}", configs.CheckoutConfig(into="src")),
        (
            "checkout: {repository: 'file:///r', ref: main, submodules: true}",
            configs.CheckoutConfig(repository="file:///r", ref="main", submodules=True),
        ),
        ("run: make", configs.RunConfig("make")),
        ("run: true", configs.RunConfig("true")),
        ("publish: myapp.tar.gz", configs.PublishConfig("myapp.tar.gz")),
        ("publish: {artefact: myapp.tar.gz}", configs.PublishConfig("myapp.tar.gz")),
        ("publish: {artifact: app, path: dist/app}", configs.PublishConfig("app", "dist/app")),
        ("cache: {key: deps, paths: .venv}", configs.CacheConfig("deps", (".venv",))),
        (
            "cache: {key: deps, paths: [a, b], key_files: '*.lock', restore_keys: [dep]}",
            configs.CacheConfig("deps", ("a", "b"), ("*.lock",), ("dep",)),
        ),
        ("quality: {junit: 'reports/*.xml'}", configs.QualityConfig(("reports/*.xml",))),
        (
            "quality: {coverage: c.xml, min_line_coverage: 80%, min_branch_coverage: 7.5, min_tests: 10, max_skipped: 2}",
            configs.QualityConfig((), ("c.xml",), 10, 0, 2, 0.8, 0.075),
        ),
        ("approve: Really?", configs.ApproveConfig(Approval("Really?"))),
        (
            "approve: {required: 2, approvers: [ann, bob], allow_self: false, timeout: 1h}",
            configs.ApproveConfig(Approval("", 2, ("ann", "bob"), allow_self=False, timeout=3600.0)),
        ),
    ],
)
def test_each_kind_of_step_and_its_short_forms(line: str, expected: Any):
    assert config(line, type(expected)) == expected


@pytest.mark.parametrize("line", ["download: app", "download: {artefact: app}", "download: {artifact: app}"])
def test_download_in_all_its_forms(line: str):
    found = plan(f"jobs:\n  a:\n    steps: [{{publish: app}}]\n  b:\n    depends_on: a\n    steps:\n      - {line}\n")
    assert msgspec.convert(found.job("b").steps[0].config, configs.DownloadConfig) == configs.DownloadConfig("app")


def test_a_step_has_its_modifiers():
    found = step(
        "{run: make, name: Build, id: build, when: 'run.attempt == 1', env: {A: 1, B: true, C: 1.10}, timeout: 5m,"
        " retry: {attempts: 4, delay: 2s, factor: 1, max_delay: 1m}, working_directory: app, shell: zsh -c,"
        " on_crash: report}"
    )
    assert found == StepPlan(
        id="build",
        kind="run",
        name="Build",
        config={"script": "make"},
        when="run.attempt == 1",
        env={"A": "1", "B": "true", "C": "1.10"},
        timeout=300.0,
        retry=Retry(4, 2.0, 1.0, 60.0),
        working_directory="app",
        shell="zsh -c",
        on_crash="report",
        line=5,
    )


def test_steps_are_numbered_and_the_other_lists_come_last():
    found = job("steps: [{run: a}, {run: b}]\non_failure: [{run: c}]\nalways: [{run: d}, {run: e}]")
    assert [(one.id, one.run_on) for one in found.steps] == [
        ("1", "success"),
        ("2", "success"),
        ("on_failure-1", "failure"),
        ("always-1", "always"),
        ("always-2", "always"),
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("run: make test", "make test"),
        ("run: |\n          # a comment\n          first\n          second", "first"),
        ("run: " + "x" * 100, "x" * 69 + "..."),
        ("checkout: .", "checkout ."),
        ("publish: app", "publish app"),
        ("cache: {key: deps, paths: a}", "cache deps"),
        ("quality: {junit: a}", "quality gate"),
        ("approve: Sure?", "Sure?"),
        ("approve: {}", "approve"),
    ],
)
def test_steps_without_a_name_are_told_by_what_they_do(line: str, name: str):
    assert step(line).name == name


@pytest.mark.parametrize(("value", "shown"), [("${{ run.id == 'x' }}", "run.id == 'x'"), ("false", "false")])
def test_conditions_may_stand_with_or_without_braces(value: str, shown: str):
    assert job(f"when: {value}").when == shown


# jobs


def test_depends_on_takes_one_name_or_a_list():
    found = plan(
        "jobs:\n  a: {steps: [{run: a}]}\n  b: {depends_on: a, steps: [{run: b}]}\n"
        "  c: {depends_on: [a, b, a], steps: [{run: c}]}\n"
    )
    assert [one.depends_on for one in found.jobs] == [(), ("a",), ("a", "b")]


def test_jobs_are_ordered_so_that_each_follows_what_it_depends_on():
    found = plan(
        "jobs:\n  z: {depends_on: [m, a], steps: [{run: a}]}\n  m: {depends_on: a, steps: [{run: b}]}\n"
        "  a: {steps: [{run: c}]}\n  b: {steps: [{run: d}]}\n"
    )
    assert [one.name for one in found.jobs] == ["a", "m", "z", "b"]


@pytest.mark.parametrize(
    ("trigger", "gate"),
    [
        ("automatic", None),
        ("manual", Approval()),
        ("{manual: Really?}", Approval("Really?")),
        ("{manual: {}}", Approval()),
        (
            (
                "{manual: {message: Go?, required: 2, approvers: [ann, bob, eve], allow_self: false, timeout: 2d,"
                " inputs: {why: {type: string, required: true}, where: [a, b]}}}"
            ),
            Approval(
                "Go?",
                2,
                ("ann", "bob", "eve"),
                allow_self=False,
                inputs=(Parameter("why", required=True), Parameter("where", "choice", options=("a", "b"))),
                timeout=172800.0,
            ),
        ),
    ],
)
def test_triggers(trigger: str, gate: Approval | None):
    assert job(f"trigger: {trigger}").gate == gate


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        ("3", Retry(3)),
        ("{}", Retry(3)),
        ("{attempts: 5, delay: 10s}", Retry(5, 10.0)),
        ("{attempts: 2, delay: 1m, factor: 3, max_delay: 10m}", Retry(2, 60.0, 3.0, 600.0)),
    ],
)
def test_retries(value: str, retry: Retry):
    assert job(f"retry: {value}").retry == retry


@pytest.mark.parametrize(
    ("value", "concurrency"),
    [
        ("deploys", Concurrency("deploys")),
        ("{group: g, limit: 3, when_busy: cancel_running}", Concurrency("g", 3, "cancel_running")),
    ],
)
def test_concurrency_groups(value: str, concurrency: Concurrency):
    assert job(f"concurrency: {value}").concurrency == concurrency
    assert plan(f"concurrency: {value}\njobs: {{a: {{steps: [{{run: a}}]}}}}").concurrency == concurrency


def test_a_concurrency_group_may_have_a_matrix_value_or_wait_for_the_run():
    found = plan("jobs:\n  a:\n    matrix: {os: [x]}\n    concurrency: g-${{ matrix.os }}\n    steps: [{run: a}]\n")
    assert found.jobs[0].concurrency == Concurrency("g-x")
    later = job("concurrency: g-${{ run.ref }}")
    assert later.concurrency == Concurrency("g-${{ run.ref }}")


def test_the_rest_of_a_job():
    found = job(
        "timeout: 1h30m\nenv: {A: b}\nworking_directory: app\nshell: bash -c\nrunner: process\nenvironment: staging",
        STAGING,
    )
    assert (found.timeout, found.env, found.working_directory) == (5400.0, {"A": "b"}, "app")
    assert (found.shell, found.runner, found.environment, found.line) == ("bash -c", "process", "staging", 3)


def test_defaults_hold_where_a_job_says_nothing():
    top = "defaults: {timeout: 10m, retry: 2, working_directory: app, shell: dash -c}"
    quiet, loud = job("env: {}", top), job("timeout: 1m\nretry: 5\nworking_directory: b\nshell: zsh -c", top)
    assert (quiet.timeout, quiet.retry, quiet.working_directory, quiet.shell) == (600.0, Retry(2), "app", "dash -c")
    assert (loud.timeout, loud.retry, loud.working_directory, loud.shell) == (60.0, Retry(5), "b", "zsh -c")


def test_the_top_of_the_file():
    found = plan(
        "name: shop\nenv: {LEVEL: 2}\nmax_parallel: 4\nx-note: {anything: [goes]}\n"
        "secrets:\n  A:\n  B: {env: OTHER}\n  C: {file: /run/secrets/c}\n  D: {command: pass show d}\n"
        "  E: {command: [pass, e]}\njobs: {a: {x-owner: me, steps: [{run: a, x-why: because}]}}\n"
    )
    assert (found.name, found.env, found.max_parallel) == ("shop", {"LEVEL": "2"}, 4)
    assert found.secrets == (
        SecretReference("A", env="A"),
        SecretReference("B", env="OTHER"),
        SecretReference("C", file="/run/secrets/c"),
        SecretReference("D", command=("sh", "-c", "pass show d")),
        SecretReference("E", command=("pass", "e")),
    )


def test_secrets_may_be_a_list_of_names():
    assert plan("secrets: [TOKEN]\njobs: {a: {steps: [{run: a}]}}").secrets == (SecretReference("TOKEN", env="TOKEN"),)


# parameters

TYPED = """
parameters:
  text: {type: string, description: what, default: a}
  count: {type: number, default: 3}
  sure: {type: boolean, default: false}
  level: {type: choice, options: [low, high], default: high}
  bare: x
  number: 1.5
  flag: true
  pick: [p, q]
  typed: string
  nothing:
jobs: {a: {steps: [{run: a}]}}
"""


def test_parameters_have_their_defaults_or_the_types_nothing():
    assert plan(TYPED).parameters == {
        "text": "a",
        "count": 3,
        "sure": False,
        "level": "high",
        "bare": "x",
        "number": "1.5",
        "flag": True,
        "pick": "p",
        "typed": "",
        "nothing": "",
    }


def test_parameters_are_read_by_their_type_from_text():
    given = {"text": "007", "count": "4.5", "sure": "true", "level": "low", "flag": False, "pick": "q"}
    found = plan(TYPED, given).parameters
    assert [found[name] for name in given] == ["007", 4.5, True, "low", False, "q"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "many"}, "the value of the parameter `count` is not a number: `many`"),
        ({"sure": "yes"}, "the value of the parameter `sure` is not `true` or `false`: `yes`"),
        ({"level": "mid"}, "the value of the parameter `level` is not one of `low`, `high`: `mid`"),
        ({"cuont": 1}, "the pipeline has no parameter `cuont`"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(given: dict[str, Any], message: str):
    assert messages(TYPED, given) == [message]


def test_a_required_parameter_must_be_given_but_lint_does_not_ask():
    text = "parameters: {tag: {required: true}}\njobs: {a: {steps: [{publish: 'app-${{ params.tag }}'}]}}"
    assert messages(text) == ["the parameter `tag` needs a value"]
    assert diagnose(Sources(read(text, "f"))) == []
    assert plan(text, {"tag": "v1"}).jobs[0].steps[0].config["name"] == "app-v1"


def test_a_parameter_cannot_smuggle_a_path_into_an_artifacts_name():
    text = "parameters: {tag: a}\njobs: {a: {steps: [{publish: '${{ params.tag }}'}]}}"
    assert messages(text, {"tag": "../../etc/passwd"}) == ["this name cannot be `../../etc/passwd`"]
    assert messages(text, {"tag": "${{ run.id }}"}) == ["this name cannot be `${{ run.id }}`"]


def test_values_that_only_the_run_knows_stay_in_the_plan():
    found = job("env: {V: '${{ run.commit }}'}\nsteps: [{run: echo, name: 'at ${{ run.ref }}'}]")
    assert found.env == {"V": "${{ run.commit }}"}
    assert found.steps[0].name == "at ${{ run.ref }}"


# deploys


def deploy(body: str) -> configs.DeployConfig:
    found = plan(f"{PUBLISHED}  d:\n    depends_on: b\n    steps:\n      - deploy: {body}\n")
    return msgspec.convert(found.job("d").steps[0].config, configs.DeployConfig)


@pytest.mark.parametrize(
    ("body", "strategy"),
    [
        ("p", Strategy()),
        ("{environment: p}", Strategy("rolling", max_surge=1, max_unavailable=0)),
        ("{environment: p, strategy: blue_green}", Strategy("blue_green")),
        (
            "{environment: p, strategy: {rolling: {max_surge: 2, max_unavailable: 1}}}",
            Strategy(max_surge=2, max_unavailable=1),
        ),
        (
            "{environment: p, strategy: {canary: {steps: [{weight: 5%}, {pause: 30s}, {weight: 12.5}]}}}",
            Strategy("canary", (StrategyStep(weight=500), StrategyStep(pause=30.0), StrategyStep(weight=1250))),
        ),
        (
            "{environment: p, strategy: {canary: {steps: [{weight: 1%}, {pause: until_resumed}], auto_promote: false}}}",
            Strategy(
                "canary", (StrategyStep(weight=100), StrategyStep(pause=0.0, until_resumed=True)), auto_promote=False
            ),
        ),
        (
            "{environment: p, progress_deadline: 1m, bake: 2m, patience: 3m, keep_previous: 0, warm_up: 5s}",
            Strategy(progress_deadline=60.0, bake=120.0, patience=180.0, keep_previous=0.0, warm_up=5.0),
        ),
        (
            "{environment: p, harm_budget: 100, strategy: {blue_green: {harm_budget: {outage: 30s}}}}",
            Strategy("blue_green", harm_budget=HarmBudget(outage=30.0)),
        ),
        (
            "{environment: p, harm_budget: {failed_requests: 50, outage: 1m}, strategy: rolling}",
            Strategy(harm_budget=HarmBudget(50, 60.0)),
        ),
        ("{environment: p, harm_budget: 20}", Strategy(harm_budget=HarmBudget(20))),
        (
            "{environment: p, bake: 1m, strategy: {blue_green: {bake: 2m}}}",
            Strategy("blue_green", bake=120.0),
        ),
        (
            (
                "{environment: p, checks: [{error_rate: {above: 5%, over: 5m}}, {error_rate: 1%},"
                " {latency: {quantile: 0.99, above: 500ms, over: 1m, minimum_requests: 50}}, {latency: 2s},"
                " {cpu: {above: 80%}}, {cpu: 250%}, {memory: {above: 512MiB}}]}"
            ),
            Strategy(
                thresholds=(
                    Threshold("error_rate", 0.05, 300.0),
                    Threshold("error_rate", 0.01, 300.0),
                    Threshold("latency", 0.5, 60.0, 0.99, 50),
                    Threshold("latency", 2.0),
                    Threshold("cpu", 0.8),
                    Threshold("cpu", 2.5),
                    Threshold("memory", 512.0 * 1024 * 1024),
                )
            ),
        ),
    ],
)
def test_strategies(body: str, strategy: Strategy):
    assert deploy(body).strategy == strategy


def test_a_canary_without_steps_has_careful_ones():
    found = deploy("{environment: p, strategy: canary}").strategy
    assert [one.weight for one in found.steps if one.weight] == [500, 2500, 5000]
    assert all(one.pause == 60.0 for one in found.steps if one.pause)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("adaptive", Adaptive()),
        ("{adaptive: {}}", Adaptive()),
        (
            "{adaptive: {budget: 50, tolerance: 0.5%, start: 1%, most: 30%, reaction: 6s, every: 0s, decide_within: 1h}}",
            Adaptive(50.0, 0.005, 100, 3000, 6.0, 0.0, 3600.0),
        ),
    ],
)
def test_a_canary_may_find_its_own_weights(written: str, expected: Adaptive):
    found = deploy(f"{{environment: p, bake: 1m, strategy: {{canary: {written}}}}}").strategy
    assert (found.name, found.steps, found.adaptive, found.bake) == ("canary", (), expected, 60.0)


def test_a_canary_may_ask_people():
    found = deploy("{environment: p, strategy: {canary: {steps: [{weight: 5%}, {approve: {required: 2}}]}}}")
    assert msgspec.convert(found.strategy.steps[1].approval, Approval) == Approval(required=2)


def test_the_rest_of_a_deploy():
    found = deploy(
        "{environment: p, artefact: app, version: 1.10, wait: false, timeout: 10m,"
        " target: {replicas: 5, env: {A: 1}, ready: /ok, command: serve --fast},"
        " routes: [{header: x-canary, value: 1}, {cookie: beta}, {mirror: 20%}]}"
    )
    assert (found.environment, found.artifact, found.version) == ("p", "app", "1.10")
    assert (found.wait, found.timeout) == (False, 600.0)
    assert found.target["replicas"] == 5
    assert found.target["command"] == ["sh", "-c", "exec serve --fast"]
    assert found.target["ready"]["http"] == "/ok"
    assert set(found.target) == {"replicas", "env", "ready", "command"}
    assert found.routes == (
        Route("", header="x-canary", value="1"),
        Route("", cookie="beta"),
        Route("", mirror=2000),
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("verify: staging", configs.VerifyConfig("staging")),
        (
            "verify: {environment: staging, timeout: 1m, interval: 5s, for: 2m, rollback: true, checks: [{error_rate: 1%}]}",
            configs.VerifyConfig("staging", 60.0, 5.0, (Threshold("error_rate", 0.01),), 120.0, rollback=True),
        ),
        ("rollback: staging", configs.RollbackConfig("staging")),
        ("rollback: {environment: staging, to: 1.3}", configs.RollbackConfig("staging", "1.3")),
    ],
)
def test_verify_and_rollback(line: str, expected: Any):
    assert config(line, type(expected), STAGING) == expected


def test_verify_has_the_seeds_numbers_by_default():
    found = config("verify: staging", configs.VerifyConfig, STAGING)
    assert (found.timeout, found.interval) == (300.0, 15.0)
    assert found.thresholds == (Threshold("error_rate", 0.05, 300.0),)


# expressions and injection


def test_a_choice_or_a_number_may_stand_in_a_script_but_text_may_not():
    top = "parameters: {n: 3, pick: [a, b], text: x}\n"
    assert plan(f"{top}jobs: {{a: {{steps: [{{run: 'echo ${{{{ params.n }}}} ${{{{ params.pick }}}}'}}]}}}}")
    assert (
        "would be run as code" in messages(f"{top}jobs: {{a: {{steps: [{{run: 'echo ${{{{ params.text }}}}'}}]}}}}")[0]
    )


def test_text_may_come_as_an_environment_variable():
    assert plan("parameters: {t: x}\njobs: {a: {steps: [{run: echo $T, env: {T: '${{ params.t }}'}}]}}")


def test_yaml_booleans_of_old_are_text():
    found = job("env: {A: on, B: yes, C: no, D: true}")
    assert found.env == {"A": "on", "B": "yes", "C": "no", "D": "true"}

"""What releases do that only a cluster has: adopting, handing back, what is left behind, one cluster after another."""

from __future__ import annotations

import pytest
import yaml

from cluster.releases import settings_map


@pytest.mark.long
def test_what_lives_there_is_adopted_under_load_released_on_and_handed_back(project, kubectl) -> None:
    """No pod restarts by it, and nobody notices: from the plain Deployment to a canary that comes back, and away."""
    shop = project("gateway_api")
    kubectl.ok("apply", "-f", shop.folder / "k8s")
    kubectl.apply(settings_map("0.9", "0"))
    kubectl.rolled_out("deployment/shop")
    pods = {pod["metadata"]["uid"] for pod in kubectl.json("get", "pods")["items"]}
    with shop.users() as users:
        told = shop.run("1.0", bad="0.5", code=1)
        assert "Deployment shop is there already: it becomes the stable version" in told
        users.until_all_are("0.9")
        assert {pod["metadata"]["uid"] for pod in kubectl.json("get", "pods", "-l", "app=shop")["items"]} >= pods
        shop.run("1.1")
        users.until_all_are("1.1")
        shop.settled()
        said = shop.forge("env", "hand-back", "production", "--yes", timeout=100)
        assert said.returncode == 0, said.stderr
        assert "handed back" in said.stderr
        users.until_all_are("1.1")
    assert set(users.failed) <= {"500 1.0"}
    assert [each["metadata"]["name"] for each in kubectl.json("get", "deployments")["items"]] == ["shop"]
    (rule,) = kubectl.json("get", "httproute", "shop")["spec"]["rules"]
    assert [each["name"] for each in rule["backendRefs"]] == ["shop"]
    assert kubectl.json("get", "all,configmaps,secrets", "-l", "app.kubernetes.io/managed-by=forge")["items"] == []
    assert shop.forge("env", "down", "production", "--yes").returncode == 2


@pytest.mark.long
def test_what_was_left_behind_is_found_and_removed_when_told(project, kubectl) -> None:
    shop = project("gateway_api")
    shop.run("1.0")
    shop.settled()
    marks = {"app.kubernetes.io/managed-by": "forge", "forge.dev/environment": "production", "forge.dev/version": "0-1"}
    lost = settings_map("0.1", "0")
    lost["metadata"] |= {"name": "shop-settings-0-1", "labels": marks, "annotations": {"forge.dev/version-id": "0.1"}}
    mine = {**settings_map("x", "0"), "metadata": {"name": "mine"}}
    kubectl.apply(lost, mine)
    found = shop.forge("doctor").stdout
    assert "ConfigMap shop-settings-0-1" in found
    assert "has no version 0.1" in found
    assert shop.forge("doctor", "--remove-orphans").returncode == 2  # nobody can be asked
    removed = shop.forge("doctor", "--remove-orphans", "--yes")
    assert removed.returncode == 0, removed.stderr
    left = {each["metadata"]["name"] for each in kubectl.json("get", "configmaps")["items"]}
    assert "shop-settings-0-1" not in left
    assert "mine" in left
    assert "nothing was left behind" in shop.forge("doctor", "--remove-orphans", "--yes").stderr


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_bad_version_goes_no_further_than_the_first_cluster(project, cluster, namespace, kubectl) -> None:
    """Two contexts of a kubeconfig, each an environment: a release goes through them in waves."""
    shop = project("gateway_api")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    (context,) = config["contexts"]
    config["contexts"] = [{**context, "name": name} for name in ("eu", "us")]
    path = shop.folder.parent / "both.kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump({**config, "current-context": "eu"}))
    shop.forge.env["KUBECONFIG"] = str(path)
    other = f"{namespace}-us"
    kubectl.ok("create", "namespace", other)
    try:
        pipeline = yaml.safe_load((shop.folder / "forge" / "pipeline.yaml").read_text())
        one = pipeline["environments"].pop("production")
        script, deploy = pipeline["jobs"].pop("release")["steps"]
        for name, place, before in (("eu", namespace, None), ("us", other, "eu")):
            access = {"context": name, "namespace": place, "manifests": "k8s"}
            pipeline["environments"][name] = {**one, "target": {"kubernetes": access}}
            if before:  # nobody scrapes the second one, so that nothing judges there
                pipeline["environments"][name].pop("signals")
            steps = [script, {"deploy": {**deploy["deploy"], "environment": name}}]
            pipeline["jobs"][name] = {"steps": steps, **({"depends_on": before} if before else {})}
        (shop.folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
        shop.run("1.0", timeout=150)
        with shop.users():
            shop.run("1.1", bad="0.5", code=1, timeout=150)
        stable = {name: shop.forge.json("env", "show", name)["stable"] for name in ("eu", "us")}
        assert stable == {"eu": "1.0", "us": "1.0"}
        assert shop.forge.json("env", "show", "us")["releases"][0]["version"] == "1.0"
        assert shop.forge("env", "show", "asia").returncode == 2
    finally:
        kubectl("delete", "namespace", other, "--wait=false")

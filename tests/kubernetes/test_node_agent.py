"""The test cluster's nodes: real processes, probes, logs and failures, told as a kubelet tells them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import gateway_shops as shops
from cluster.access import KUBECTL, Kubectl, until
from cluster.gateway_load import ask
from cluster.node_addresses import loopback
from cluster.sharing import Cluster

pytestmark = pytest.mark.kubernetes
Object = dict[str, Any]
ADDRESS = {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    told = {"terminationGracePeriodSeconds": 2, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": told}


def shell(script: str, name: str = "main", **more: Any) -> Object:
    return {"name": name, "image": "any", "command": ["sh", "-c", script], **more}


def failing(wanted: str, container: Object, **annotations: str) -> Object:
    made = pod(wanted, container)
    made["metadata"]["annotations"] = {"forge.test/fail": wanted, **annotations}
    return made


def status(kubectl: Kubectl, name: str) -> Object:
    return kubectl.json("get", "pod", name)["status"]


def container_state(kubectl: Kubectl, name: str, index: int = 0) -> Object:
    containers = status(kubectl, name).get("containerStatuses") or [{"state": {}}] * (index + 1)
    return containers[index]["state"]


def waits_for(kubectl: Kubectl, name: str, reason: str) -> Object:
    def there() -> Object | None:
        waiting = container_state(kubectl, name).get("waiting", {})
        return waiting if waiting.get("reason") == reason else None

    return until(there, f"{name} to wait for {reason}", 20)


def phase(kubectl: Kubectl, name: str, wanted: str, patience: float = 20) -> Object:
    until(lambda: status(kubectl, name).get("phase") == wanted, f"{name} to be {wanted}", patience)
    return status(kubectl, name)


def conditions(kubectl: Kubectl, name: str) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status(kubectl, name).get("conditions", ())}


def test_a_container_gets_its_environment_volumes_and_arguments(kubectl: Kubectl) -> None:
    script = (
        'echo "$GREETING|$WHO|$NODE|$TOKEN|$B_KEY"; echo "$1"; cat /etc/told/greeting /etc/told/labels /secret/token;'
        " echo shared > /scratch/file; pwd"
    )
    env = [
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "told", "key": "greeting"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}},
    ]
    projected = {"sources": [
        {"configMap": {"name": "told"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}  # fmt: skip
    made = pod(
        "reader",
        {**shell(script), "command": ["sh", "-c", script, "sh"], "args": ["for $(WHO), $$(WHO)"], "env": env,
         "envFrom": [{"prefix": "B_", "configMapRef": {"name": "told"}}], "workingDir": "/scratch",
         "volumeMounts": [{"name": "told", "mountPath": "/etc/told"}, {"name": "hidden", "mountPath": "/secret"},
                          {"name": "scratch", "mountPath": "/scratch"}]},
        {**shell("until [ -s /other/file ]; do sleep 0.05; done; cat /other/file", "second"),
         "volumeMounts": [{"name": "scratch", "mountPath": "/other"}]},
        restartPolicy="Never",
        volumes=[{"name": "told", "projected": projected}, {"name": "scratch", "emptyDir": {}},
                 {"name": "hidden", "secret": {"secretName": "hidden", "items": [{"key": "token", "path": "token"}]}}],
    )  # fmt: skip
    made["metadata"]["labels"] = {"colour": "blue"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"greeting": "hello", "KEY": "k"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"token": "s3cret"}}, made,
    )  # fmt: skip
    node = phase(kubectl, "reader", "Succeeded") and kubectl.json("get", "pod", "reader")["spec"]["nodeName"]
    said = kubectl.ok("logs", "reader", "-c", "main").splitlines()
    assert said[:2] == [f"hello|reader|{node}|s3cret|k", "for reader, $(WHO)"]
    assert said[2] == 'hellocolour="blue"'
    assert said[3].startswith("s3cret")
    assert kubectl.ok("logs", "reader", "-c", "second").strip() == "shared"


def test_what_is_lacking_is_told_and_waited_for(kubectl: Kubectl) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    kubectl.apply(pod("waiting", shell("echo got $A", env=env), restartPolicy="Never"))
    assert waits_for(kubectl, "waiting", "CreateContainerConfigError")["message"] == 'configmap "late" not found'
    assert kubectl("logs", "waiting").stderr.strip().endswith("is waiting to start: CreateContainerConfigError")
    kubectl.ok("create", "configmap", "late", "--from-literal=a=it")
    told = phase(kubectl, "waiting", "Succeeded")
    assert told["containerStatuses"][0]["restartCount"] == 0
    assert kubectl.ok("logs", "waiting") == "got it\n"


def test_init_containers_run_in_order_and_a_sidecar_stays(kubectl: Kubectl) -> None:
    mount = [{"name": "work", "mountPath": "/work"}]
    init = [
        shell("echo one >> /work/order", "one", volumeMounts=mount),
        shell("echo side >> /work/order; sleep 60", "side", volumeMounts=mount, restartPolicy="Always"),
        shell("sleep 0.2; echo two >> /work/order", "two", volumeMounts=mount),
    ]
    kubectl.apply(pod("ordered", shell("cat /work/order", volumeMounts=mount), initContainers=init, restartPolicy="Never",
                      volumes=[{"name": "work", "emptyDir": {}}]))  # fmt: skip
    told = phase(kubectl, "ordered", "Succeeded")
    assert kubectl.ok("logs", "ordered", "-c", "main").split() == ["one", "side", "two"]
    assert conditions(kubectl, "ordered")["Initialized"] == "True"
    assert told["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


def test_an_init_container_that_fails_keeps_the_others_from_starting(kubectl: Kubectl) -> None:
    kubectl.apply(pod("broken", shell("echo never"), initContainers=[shell("exit 4", "first")], restartPolicy="Never"))
    told = phase(kubectl, "broken", "Failed")
    assert told["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert told["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_job_runs_to_its_end_and_a_failing_one_is_tried_again(kubectl: Kubectl) -> None:
    def job(name: str, script: str) -> Object:
        template = {"spec": {"restartPolicy": "Never", "containers": [shell(script)]}}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {"backoffLimit": 0, "template": template}}  # fmt: skip

    kubectl.apply(job("good", "echo done"), job("bad", "exit 7"))
    kubectl.ok("wait", "--for=condition=Complete", "job/good", "--timeout=30s")
    kubectl.ok("wait", "--for=condition=Failed", "job/bad", "--timeout=30s")
    assert kubectl.ok("logs", "job/good") == "done\n"
    listed = kubectl.json("get", "pods", "-l", "job-name=bad")["items"]
    assert [each["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for each in listed] == [7]


def test_a_container_that_ends_is_started_again_later_and_later(kubectl: Kubectl) -> None:
    kubectl.apply(
        pod("loop", shell("echo life; echo why >&2; exit 3", terminationMessagePolicy="FallbackToLogsOnError"))
    )
    words = waits_for(kubectl, "loop", "CrashLoopBackOff")["message"]
    assert words.startswith("back-off ")
    assert "restarting failed container=main pod=loop_" in words
    until(lambda: status(kubectl, "loop")["containerStatuses"][0]["restartCount"] >= 2, "two restarts", 20)
    told = status(kubectl, "loop")
    assert told["phase"] == "Running"
    assert conditions(kubectl, "loop") == {
        "PodScheduled": "True", "PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "False",
        "Ready": "False",
    }  # fmt: skip
    waits_for(kubectl, "loop", "CrashLoopBackOff")
    last = status(kubectl, "loop")["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert set(last["message"].splitlines()) == {"life", "why"}
    assert kubectl.ok("logs", "loop", "--previous").splitlines()[0] == "life"
    reasons = {each["reason"] for each in kubectl.json("get", "events")["items"]}
    assert "BackOff" in reasons


def test_probes_are_carried_out(kubectl: Kubectl, tmp_path: Path) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    probe = {"exec": {"command": ["sh", "-c", "test -e /work/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    alive = {"exec": {"command": ["sh", "-c", "! test -e /work/dead"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = shell("rm -f /work/dead; sleep 100", readinessProbe=probe, livenessProbe=alive, **mount)
    steering = shell("sleep 100", "steering", **mount)
    kubectl.apply(pod("probed", container, steering, volumes=[{"name": "work", "hostPath": {"path": str(tmp_path)}}]))
    phase(kubectl, "probed", "Running")
    time.sleep(0.5)
    assert conditions(kubectl, "probed")["Ready"] == "False"
    event = until(
        lambda: [e for e in kubectl.json("get", "events")["items"] if e["reason"] == "Unhealthy"], "event", 10
    )
    assert event[0]["message"] == "Readiness probe failed: command exited with 1"
    (tmp_path / "ready").touch()
    until(lambda: conditions(kubectl, "probed")["Ready"] == "True", "it to be ready", 10)
    before = transition(kubectl, "PodScheduled"), transition(kubectl, "Ready")
    (tmp_path / "dead").touch()

    def restarted() -> bool:
        main = status(kubectl, "probed")["containerStatuses"][0]
        return main["restartCount"] == 1 and "running" in main["state"]

    until(restarted, "the liveness probe to have it restarted", 20)
    until(lambda: conditions(kubectl, "probed")["Ready"] == "True", "it to be ready again", 10)
    assert transition(kubectl, "PodScheduled") == before[0]
    assert transition(kubectl, "Ready") > before[1]


def transition(kubectl: Kubectl, kind: str) -> str:
    return next(e["lastTransitionTime"] for e in status(kubectl, "probed")["conditions"] if e["type"] == kind)


def test_a_startup_probe_holds_the_others_back(kubectl: Kubectl) -> None:
    startup = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    kubectl.apply(
        pod("slow-start", shell("sleep 100", startupProbe=startup, readinessProbe={"exec": {"command": ["true"]}}))
    )
    phase(kubectl, "slow-start", "Running")
    main = status(kubectl, "slow-start")["containerStatuses"][0]
    assert (main["started"], main["ready"]) == (False, False)
    until(lambda: status(kubectl, "slow-start")["containerStatuses"][0]["restartCount"] > 0, "a restart", 20)


@pytest.mark.parametrize("wanted", ["never-ready", "image-error", "crash-loop", "slow"])
def test_failures_on_demand(kubectl: Kubectl, wanted: str) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    kubectl.apply(failing(wanted, shell("sleep 100", readinessProbe=probe), **{"forge.test/seconds": "2"}))
    if wanted == "never-ready":
        phase(kubectl, wanted, "Running")
        time.sleep(1.5)
        assert conditions(kubectl, wanted)["Ready"] == "False"
    elif wanted == "image-error":
        assert "not found" in waits_for(kubectl, wanted, "ErrImagePull")["message"]
        waits_for(kubectl, wanted, "ImagePullBackOff")
        assert status(kubectl, wanted)["phase"] == "Pending"
    elif wanted == "crash-loop":
        waits_for(kubectl, wanted, "CrashLoopBackOff")
        assert kubectl.ok("logs", wanted, "--previous") == "this version cannot start\n"
    else:
        phase(kubectl, wanted, "Running")
        assert conditions(kubectl, wanted)["Ready"] == "False"
        until(lambda: conditions(kubectl, wanted)["Ready"] == "True", "it to be ready", 10)


def test_a_failure_that_there_is_not_is_told(kubectl: Kubectl) -> None:
    kubectl.apply(failing("never-redy", shell("sleep 100")), pod("other", shell("sleep 100")))
    phase(kubectl, "other", "Running")
    told = until(lambda: kubectl.json("get", "events", "--field-selector=reason=Failed")["items"], "an event", 10)
    assert "never-redy is none of never-ready" in told[0]["message"]


def test_one_container_s_image_may_be_lacking(kubectl: Kubectl) -> None:
    kubectl.apply(pod("half", shell("sleep 100"), shell("sleep 100", "other") | {"image": "forge.test/gone:1"}))
    phase(kubectl, "half", "Running")
    until(lambda: container_state(kubectl, "half", 1).get("waiting", {}).get("reason") == "ImagePullBackOff", "it", 10)
    assert "running" in container_state(kubectl, "half")


def test_a_stuck_pod_ends_when_it_is_forced_to(kubectl: Kubectl) -> None:
    kubectl.apply(failing("stuck", shell("sleep 100")))
    phase(kubectl, "stuck", "Running")
    kubectl.ok("delete", "pod", "stuck", "--wait=false")
    time.sleep(3.5)
    assert kubectl.json("get", "pod", "stuck")["metadata"]["deletionTimestamp"]
    kubectl.ok("delete", "pod", "stuck", "--force", "--grace-period=0")
    until(lambda: kubectl("get", "pod", "stuck").returncode == 1, "it to be gone", 10)


def test_the_grace_period_is_kept_and_the_hook_runs_first(kubectl: Kubectl, tmp_path: Path) -> None:
    script = "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /work/log"]}}}
    mount = [{"name": "work", "mountPath": "/work"}]
    volumes = [{"name": "work", "hostPath": {"path": str(tmp_path)}}]
    kubectl.apply(pod("polite", shell(script, lifecycle=hook, volumeMounts=mount), volumes=volumes),
                  pod("deaf", shell("trap '' TERM; echo up; while :; do sleep 0.05; done")))  # fmt: skip
    for name in ("polite", "deaf"):
        phase(kubectl, name, "Running")
        until(lambda name=name: kubectl.ok("logs", name) == "up\n", f"{name} to be up", 10)
    following = subprocess.Popen(
        [str(KUBECTL), "-n", kubectl.namespace, "logs", "-f", "polite"], env=kubectl.environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5)
    began = time.monotonic()
    kubectl.ok("delete", "pod", "polite")
    assert time.monotonic() - began < 1.9, "it ended when it was told to"
    said, _ = following.communicate(timeout=10)
    assert said.split() == ["up", "told"]
    assert (tmp_path / "log").read_text() == "hook\n"
    began = time.monotonic()
    kubectl.ok("delete", "pod", "deaf")
    assert time.monotonic() - began >= 1.9, "it had its grace period"


def test_logs_are_followed_cut_and_stamped(kubectl: Kubectl) -> None:
    kubectl.apply(pod("talker", shell("for n in 1 2 3 4 5; do echo line $n; sleep 0.3; done"), restartPolicy="Never"))
    until(lambda: "running" in container_state(kubectl, "talker"), "it to run", 10)
    assert kubectl.ok("logs", "-f", "talker").splitlines() == [f"line {n}" for n in range(1, 6)]
    assert kubectl.ok("logs", "talker", "--tail=2").splitlines() == ["line 4", "line 5"]
    stamp, _, rest = kubectl.ok("logs", "talker", "--timestamps").splitlines()[2].partition(" ")
    assert rest == "line 3"
    assert kubectl.ok("logs", "talker", f"--since-time={stamp}").splitlines()[-3:] == ["line 3", "line 4", "line 5"]
    assert not kubectl.ok("logs", "talker", "--since-time=2100-01-01T00:00:00Z")


def test_commands_run_in_a_container_where_it_has_its_files(kubectl: Kubectl) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/inner"}]}
    kubectl.apply(
        pod("open", shell("echo mine > /inner/file; sleep 100", **mount), volumes=[{"name": "work", "emptyDir": {}}])
    )
    phase(kubectl, "open", "Running")
    until(lambda: kubectl("exec", "open", "--", "cat", "/inner/file").stdout == "mine\n", "the file", 10)
    failed = kubectl("exec", "open", "--", "sh", "-c", "echo no >&2; exit 9")
    assert (failed.returncode, failed.stderr.splitlines()[0]) == (9, "no")
    assert kubectl("exec", "-i", "open", "--", "wc", "-l", stdin="one\ntwo\n").stdout.strip() == "2"


def test_an_image_s_own_program_serves_its_ports(kubectl: Kubectl) -> None:
    ports = [{"name": "http", "containerPort": 8080}]
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    kubectl.apply(pod("image", {"name": "web", "image": "nginx:1", "ports": ports, "readinessProbe": probe}))
    until(lambda: conditions(kubectl, "image").get("Ready") == "True", "it to be ready", 15)
    shown = status(kubectl, "image")["podIP"]
    assert shown.startswith("10.")
    assert ask(f"http://{loopback(shown)}:8080/")[:2] == (200, "image")


def test_a_rolling_update_never_has_fewer_ready_pods_than_wanted(kubectl: Kubectl) -> None:
    kubectl.apply(shops.workload("shop", "a", 3))
    kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=50s")
    kubectl.ok("rollout", "restart", "deployment/shop-a")
    seen = []
    for _ in range(200):
        told = kubectl.json("get", "deployment", "shop-a")
        seen.append(told["status"].get("readyReplicas", 0))
        if told["status"].get("updatedReplicas") == 3 == told["status"]["replicas"] and seen[-1] == 3:
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"it did not end: {seen}")
    assert min(seen) >= 3


def test_a_readiness_gate_keeps_a_pod_from_being_ready(kubectl: Kubectl, cluster: Cluster) -> None:
    made = pod("gated", shell("sleep 100"), readinessGates=[{"conditionType": "example.com/open"}])
    kubectl.apply(made)
    until(lambda: conditions(kubectl, "gated").get("ContainersReady") == "True", "its container to be ready", 15)
    assert conditions(kubectl, "gated")["Ready"] == "False"
    patch = {"status": {"conditions": [{"type": "example.com/open", "status": "True"}]}}
    where = f"/api/v1/namespaces/{kubectl.namespace}/pods/gated/status"
    cluster.api("PATCH", where, patch, "application/strategic-merge-patch+json")
    until(lambda: conditions(kubectl, "gated")["Ready"] == "True", "the gate to open", 10)


def test_a_program_that_is_not_there_ends_with_a_reason(kubectl: Kubectl) -> None:
    missing = {"name": "main", "image": "any", "command": ["no-such-program"]}
    kubectl.apply(pod("missing", missing, restartPolicy="Never"))
    told = phase(kubectl, "missing", "Failed")["containerStatuses"][0]["state"]["terminated"]
    assert told["exitCode"] in {127, 128}


def test_python_of_the_tests_is_there(kubectl: Kubectl) -> None:
    words = {"name": "main", "image": "any", "command": [sys.executable, "-c", "print('real')"]}
    kubectl.apply(pod("python", words, restartPolicy="Never"))
    phase(kubectl, "python", "Succeeded")
    assert kubectl.ok("logs", "python") == "real\n"

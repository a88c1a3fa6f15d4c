"""What a PodSpec promises, with real containers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster

NS = "pods"


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", NS)
    yield cluster
    cluster.kubectl("delete", "ns", NS, "--timeout=60s")


def apply(ns: Cluster, name: str, *containers: dict[str, Any], **spec: Any) -> None:
    for i, c in enumerate(containers):
        c.setdefault("name", f"c{i}")
        c.setdefault("image", "busybox")
        c.setdefault("imagePullPolicy", "IfNotPresent")
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"is": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
                 "containers": list(containers), **spec},
    }  # fmt: skip
    ns.kubectl("apply", "-n", NS, "-f", "-", stdin=yaml.safe_dump(body))


def pod(ns: Cluster, name: str) -> dict[str, Any]:
    return ns.get("pod", "-n", NS, name)


def ended(ns: Cluster, name: str) -> dict[str, Any]:
    def done() -> Any:
        found = pod(ns, name)
        return found if found["status"].get("phase") in ("Succeeded", "Failed") else None

    found: dict[str, Any] = ns.until(f"{name} ends", done, timeout=30)
    return found


def ready(ns: Cluster, name: str) -> None:
    ns.kubectl("wait", "-n", NS, f"pod/{name}", "--for=condition=Ready", "--timeout=30s")


def logs(ns: Cluster, name: str, *args: str) -> str:
    return ns.kubectl("logs", "-n", NS, name, *args)


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


def status_of(found: dict[str, Any], kind: str = "containerStatuses") -> dict[str, Any]:
    """The first container's status; an empty one before the agent has seen the pod."""
    nothing = {"state": {}, "restartCount": 0, "ready": False}
    status: dict[str, Any] = (found["status"].get(kind) or [nothing])[0]
    return status


def test_environment_and_expansion(ns: Cluster) -> None:
    ns.kubectl("create", "-n", NS, "configmap", "conf", "--from-literal=k=from-config")
    ns.kubectl("create", "-n", NS, "secret", "generic", "sec", "--from-literal=s=from-secret")
    env = [
        {"name": "PLAIN", "value": "one"},
        {"name": "MADE", "value": "$(PLAIN)-$(ABSENT)-$$(PLAIN)"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CONF", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "k"}}},
        {"name": "SEC", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "s"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    ]
    container = {
        "command": ["sh", "-c", 'echo "$0|$MADE|$NODE|$IP|$CONF|$SEC|$MEM|$P_k|$PWD"'],
        "args": ["arg-$(PLAIN)"], "env": env, "workingDir": "/tmp",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "conf"}}],
        # Guaranteed: also where this host cannot protect it from its OOM killer.
        "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}},
    }  # fmt: skip
    apply(ns, "env", container)
    found = ended(ns, "env")
    assert found["status"]["qosClass"] == "Guaranteed"
    expected = [
        "arg-one", "one-$(ABSENT)-$(PLAIN)", found["spec"]["nodeName"], found["status"]["podIP"],
        "from-config", "from-secret", str(64 << 20), "from-config", "/tmp",
    ]  # fmt: skip
    assert logs(ns, "env").strip().split("|") == expected


def test_volumes(ns: Cluster) -> None:
    ns.kubectl("create", "-n", NS, "configmap", "files", "--from-literal=a=1", "--from-literal=b=2")
    volumes = [
        {"name": "shared", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory"}},
        {"name": "conf", "configMap": {"name": "files", "items": [{"key": "b", "path": "x/b"}]}},
        {"name": "down", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]  # fmt: skip
    mounts = [
        {"name": "shared", "mountPath": "/shared"}, {"name": "conf", "mountPath": "/conf"},
        {"name": "fast", "mountPath": "/fast"}, {"name": "down", "mountPath": "/down"},
        {"name": "conf", "mountPath": "/one", "subPath": "x/b"},
    ]  # fmt: skip
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"""
        until [ -e /shared/told ]; do sleep 0.1; done
        cat /shared/told /conf/x/b /one /down/labels; echo
        grep -c ' /fast tmpfs' /proc/mounts
        cat {token}/namespace; echo; head -c 27 {token}/ca.crt; echo
        cut -d. -f1 {token}/token | head -c 2; echo
        touch /conf/no 2>/dev/null || echo read-only
    """
    apply(ns, "vol", sh(script, volumeMounts=mounts),
          sh("echo hello > /shared/told", volumeMounts=mounts[:1]), volumes=volumes)  # fmt: skip
    ended(ns, "vol")
    assert logs(ns, "vol", "-c", "c0").splitlines() == [
        "hello", '22is="vol"', "1", NS, "-----BEGIN CERTIFICATE-----", "ey", "read-only",
    ]  # fmt: skip


def test_the_api_is_reached_from_inside(ns: Cluster) -> None:
    """With the pod's own token: known, but allowed nothing yet."""
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f'curl -s --cacert {token}/ca.crt -H "Authorization: Bearer $(cat {token}/token)" '
        "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/pods/pods"
    )
    apply(ns, "inside", sh(script, image="praqma/network-multitool"))
    ended(ns, "inside")
    answer = json.loads(logs(ns, "inside"))
    assert answer["code"] == 403
    assert 'User "system:serviceaccount:pods:default" cannot list' in answer["message"]


def test_init_containers_run_in_order_then_the_rest(ns: Cluster) -> None:
    volume = [{"name": "v", "emptyDir": {}}]
    mount = [{"name": "v", "mountPath": "/v"}]
    inits = [
        {"name": f"i{n}", "image": "busybox", "imagePullPolicy": "IfNotPresent",
         "command": ["sh", "-c", f"echo i{n} >> /v/log"], "volumeMounts": mount}
        for n in range(2)
    ]  # fmt: skip
    apply(ns, "init", sh("cat /v/log", volumeMounts=mount), initContainers=inits, volumes=volume)
    found = ended(ns, "init")
    assert logs(ns, "init", "-c", "c0") == "i0\ni1\n"
    states = [s["state"] for s in found["status"]["initContainerStatuses"]]
    assert [s["terminated"]["reason"] for s in states] == ["Completed", "Completed"]


def test_exit_codes_reasons_and_messages(ns: Cluster) -> None:
    apply(ns, "exits", sh("echo why > /dev/termination-log; exit 3"))
    state = status_of(ended(ns, "exits"))["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (3, "Error", "why\n")
    apply(ns, "falls", sh("echo last words; exit 1",
                          terminationMessagePolicy="FallbackToLogsOnError"))  # fmt: skip
    assert status_of(ended(ns, "falls"))["state"]["terminated"]["message"] == "last words\n"
    apply(ns, "big", sh("tail /dev/zero", resources={"limits": {"memory": "16Mi"}}))
    state = status_of(ended(ns, "big"))["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")
    apply(ns, "nothing", {"command": ["/no/such/command"]})
    state = status_of(ended(ns, "nothing"))["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert "/no/such/command" in state["message"]


def test_crash_loops_back_off(ns: Cluster) -> None:
    apply(ns, "crash", sh("echo attempt; exit 1"), restartPolicy="Always")

    def looping() -> bool:
        waiting = status_of(pod(ns, "crash"))["state"].get("waiting", {})
        return bool(waiting.get("reason") == "CrashLoopBackOff")

    ns.until("crash loop", looping, timeout=30)
    found = status_of(pod(ns, "crash"))
    assert re.fullmatch(
        r"back-off \d+s restarting failed container=c0 pod=crash_pods\(.*\)",
        found["state"]["waiting"]["message"],
    )
    assert found["restartCount"] >= 1
    assert logs(ns, "crash", "--previous") == "attempt\n"
    table = ns.kubectl("get", "pods", "-n", NS, "crash")
    assert "CrashLoopBackOff" in table


def test_a_missing_image_shows_as_kubernetes_reports_it(ns: Cluster) -> None:
    apply(ns, "noimage", {"image": "nowhere.invalid/absent:1"})
    reasons: set[str] = set()

    def seen() -> bool:
        waiting = status_of(pod(ns, "noimage"))["state"].get("waiting", {})
        reasons.add(waiting.get("reason", ""))
        return "ImagePullBackOff" in reasons

    ns.until("ImagePullBackOff", seen, timeout=60)
    events = ns.kubectl("get", "events", "-n", NS, "--field-selector=involvedObject.name=noimage")
    assert 'Failed to pull image "nowhere.invalid/absent:1"' in events
    apply(ns, "never", {"image": "nowhere.invalid/absent:2", "imagePullPolicy": "Never"})
    ns.until(
        "ErrImageNeverPull",
        lambda: (
            status_of(pod(ns, "never"))["state"].get("waiting", {}).get("reason")
            == "ErrImageNeverPull"
        ),
    )


def test_probes(ns: Cluster) -> None:
    probe = {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    apply(ns, "readiness", sh("sleep 1000", readinessProbe=probe))
    ns.until("it runs", lambda: pod(ns, "readiness")["status"].get("phase") == "Running")
    ns.until(
        "it is told why",
        lambda: (
            "Readiness probe failed"
            in ns.kubectl(
                "get", "events", "-n", NS, "--field-selector=involvedObject.name=readiness"
            )
        ),
    )
    assert status_of(pod(ns, "readiness"))["ready"] is False
    ns.kubectl("exec", "-n", NS, "readiness", "--", "touch", "/tmp/ok")
    ready(ns, "readiness")

    http = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
    tcp = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    apply(ns, "web", {"image": "nginx:1.14.1", "readinessProbe": http, "startupProbe": tcp})
    ready(ns, "web")

    live = {"exec": {"command": ["test", "-e", "/tmp/live"]}, "periodSeconds": 1,
            "failureThreshold": 1, "initialDelaySeconds": 1}  # fmt: skip
    apply(ns, "liveness", sh("sleep 1000", livenessProbe=live), restartPolicy="Always")
    hangs = {"exec": {"command": ["sleep", "600"]}, "periodSeconds": 1, "failureThreshold": 1}
    apply(ns, "hangs", sh("sleep 1000", livenessProbe=hangs), restartPolicy="Always")
    ns.until("restarted", lambda: status_of(pod(ns, "liveness"))["restartCount"] >= 1)
    ns.until("restarted too", lambda: status_of(pod(ns, "hangs"))["restartCount"] >= 1)
    events = ns.kubectl("get", "events", "-n", NS, "--field-selector=involvedObject.name=liveness")
    assert "Container c0 failed liveness probe, will be restarted" in events


def test_security_context(ns: Cluster) -> None:
    script = "id -u; id -g; id -G; touch /x 2>/dev/null || echo ro; grep CapEff /proc/self/status; "
    script += "grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status"
    context = {"runAsUser": 1000, "runAsGroup": 2000, "readOnlyRootFilesystem": True,
               "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}  # fmt: skip
    apply(ns, "secure", sh(script, securityContext=context),
          securityContext={"supplementalGroups": [3000],
                           "supplementalGroupsPolicy": "Strict"})  # fmt: skip
    user = status_of(ended(ns, "secure"))["user"]
    assert user == {"linux": {"uid": 1000, "gid": 2000, "supplementalGroups": [2000, 3000]}}
    lines = logs(ns, "secure").splitlines()
    assert lines[:2] == ["1000", "2000"] and "3000" in lines[2] and lines[3] == "ro"
    assert [x.split()[-1] for x in lines[4:]] == ["0000000000000000", "1", "2"]
    apply(ns, "power", sh("grep CapEff /proc/self/status; ls /dev | wc -l",
                          securityContext={"privileged": True}))  # fmt: skip
    ended(ns, "power")
    own = Path("/proc/self/status").read_text()
    assert logs(ns, "power").split()[1] == re.findall(r"CapPrm:\s+(\w+)", own)[0]
    apply(ns, "notroot", sh("true", securityContext={"runAsNonRoot": True}))
    ns.until(
        "refused",
        lambda: (
            status_of(pod(ns, "notroot"))["state"].get("waiting", {}).get("reason")
            == "CreateContainerConfigError"
        ),
    )


def test_a_shared_process_namespace(ns: Cluster) -> None:
    apply(ns, "shared", sh("sleep 1000"), sh("sleep 1001"), shareProcessNamespace=True)
    ready(ns, "shared")
    seen = ns.kubectl("exec", "-n", NS, "shared", "-c", "c0", "--", "ps", "-o", "args")
    assert "sleep 1000" in seen and "sleep 1001" in seen and "catatonit" in seen


def test_logs(ns: Cluster) -> None:
    apply(ns, "talks", sh("for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; sleep 1000"))
    ready(ns, "talks")
    ns.until("all said", lambda: "line 5" in logs(ns, "talks"))
    assert logs(ns, "talks", "--tail=2").split("\n")[-2:] in (["bad", ""], ["line 5", ""])
    assert sorted(logs(ns, "talks").splitlines()) == ["bad", *(f"line {i}" for i in range(1, 6))]
    stamped = logs(ns, "talks", "--timestamps", "--tail=1")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S* (bad|line 5)", stamped)
    assert logs(ns, "talks", "--since=1h") == logs(ns, "talks")
    assert logs(ns, "talks", "--limit-bytes=4") == "line"
    apply(ns, "brief", sh("for i in 1 2 3; do echo $i; sleep 0.3; done"))
    ns.until("brief runs", lambda: pod(ns, "brief")["status"].get("phase") in
             ("Running", "Succeeded"))  # fmt: skip
    assert logs(ns, "brief", "-f") == "1\n2\n3\n"
    refused = ns.kubectl("logs", "-n", NS, "talks", "-c", "nosuch", check=False)
    assert "container nosuch is not valid for pod talks" in refused


def test_exec_tells_the_exit_code_and_takes_input(ns: Cluster) -> None:
    apply(ns, "execs", sh("sleep 1000"))
    ready(ns, "execs")
    echoed = ns.kubectl("exec", "-i", "-n", NS, "execs", "--", "cat", stdin="to and fro\n" * 5000)
    assert echoed == "to and fro\n" * 5000
    failed = ns.kubectl("exec", "-n", NS, "execs", "--", "sh", "-c", "echo no >&2; exit 9",
                        check=False)  # fmt: skip
    assert "no" in failed and "exit code 9" in failed


def test_a_grace_period_is_granted(ns: Cluster) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    apply(ns, "polite", sh(script), terminationGracePeriodSeconds=20)
    ready(ns, "polite")
    ns.kubectl("delete", "pod", "-n", NS, "polite", "--timeout=10s")


def test_what_is_not_done_yet_is_said(ns: Cluster) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mapped"}, "spec": {
        "containers": [{"name": "c", "image": "busybox", "command": ["true"]}],
        "hostUsers": False}}  # fmt: skip
    said = ns.kubectl("create", "-n", NS, "-f", "-", stdin=yaml.safe_dump(body), check=False)
    assert "Warning: spec.hostUsers" in said


def test_an_ephemeral_container_sees_what_runs_in_a_pod(ns: Cluster) -> None:
    apply(ns, "patient", sh("sleep 1000"))
    ready(ns, "patient")
    ns.kubectl(
        "debug", "-n", NS, "patient", "--image=busybox", "--image-pull-policy=IfNotPresent",
        "--target=c0", "-c", "doctor", "--attach=false", "--", "ps", "-o", "args",
    )  # fmt: skip

    def done() -> Any:
        state = status_of(pod(ns, "patient"), "ephemeralContainerStatuses")["state"]
        return state.get("terminated")

    assert ns.until("the doctor is done", done, timeout=30)["exitCode"] == 0
    assert "sleep 1000" in logs(ns, "patient", "-c", "doctor")
    assert status_of(pod(ns, "patient"))["ready"] is True
    attached = subprocess.Popen(
        ns.kubectl_command("attach", "-n", NS, "patient", "-c", "c0"), stdout=subprocess.PIPE,
        env=ns.env, text=True,
    )  # fmt: skip
    ns.kubectl("delete", "pod", "-n", NS, "patient", "--timeout=30s")
    attached.communicate(timeout=30)


def test_who_takes_too_much_is_evicted_and_unsafe_sysctls_are_refused(ns: Cluster) -> None:
    script = "dd if=/dev/zero of=/v/big bs=1024 count=3000 2>/dev/null; sleep 1000"
    mount = [{"name": "v", "mountPath": "/v"}]
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    apply(ns, "greedy", sh(script, volumeMounts=mount), volumes=volumes, restartPolicy="Always")
    sysctls = {"sysctls": [{"name": "kernel.msgmax", "value": "10000"}]}
    apply(ns, "unsafe", sh("true"), securityContext=sysctls)
    assert ended(ns, "unsafe")["status"]["reason"] == "SysctlForbidden"
    status = ended(ns, "greedy")["status"]
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed", "Evicted", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
    )  # fmt: skip
    assert "Evicted" in ns.kubectl("get", "pod", "-n", NS, "greedy")

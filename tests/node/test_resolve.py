"""From a pod's spec to container and sandbox specs."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sampan.node.environment import environment, expand
from sampan.node.hosts import hosts_file, resolv_conf, resolver
from sampan.node.resolve import (
    Context,
    container_spec,
    domain,
    host_label,
    hostname,
    pod_limits,
    references,
    sandbox_spec,
)
from sampan.node.runtime.base import Image, Limits, Mount, RuntimeFailure
from sampan.node.status import qos_class
from sampan.testing.machine_world import pod_body


def spec_of(container: dict[str, Any], context: Context | None = None, **more: Any) -> Any:
    container = {"name": "a", "image": "img", **container}
    context = context or Context(pod=pod_body(container))
    return container_spec(context, container, id="c", attempt=0, **more)


def env_of(container: dict[str, Any], **context: Any) -> dict[str, str]:
    body = {"name": "a", **container}
    values = {"pod": pod_body(body), **context}
    return dict(environment(Context(**values), body))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A}", "$A ${A}"),
        ("100%$", "100%$"),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded(text: str, wanted: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == wanted


def test_command_and_args_see_the_environment() -> None:
    spec = spec_of(
        {
            "command": ["run", "$(NAME)"],
            "args": ["--x=$(OTHER)", "$(NOPE)"],
            "env": [{"name": "NAME", "value": "v"}, {"name": "OTHER", "value": "$(NAME)-2"}],
        }
    )
    assert spec.command == ("run", "v")
    assert spec.args == ("--x=v-2", "$(NOPE)")
    assert dict(spec.env) == {"NAME": "v", "OTHER": "v-2"}


CONFIG = {"data": {"k": "v", "two": "2"}, "binaryData": {"bin": "AAE="}}
SECRET = {"data": {"pw": base64.b64encode(b"s3cret").decode()}}


def test_environment_from_every_source() -> None:
    env = env_of(
        {
            "envFrom": [
                {"prefix": "C_", "configMapRef": {"name": "cm"}},
                {"secretRef": {"name": "sec"}},
                {"configMapRef": {"name": "none", "optional": True}},
            ],
            "env": [
                {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
                {
                    "name": "GONE",
                    "valueFrom": {"secretKeyRef": {"name": "sec", "key": "no", "optional": True}},
                },
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}},
            ],
        },
        configs={
            ("configmaps", "cm"): CONFIG,
            ("secrets", "sec"): SECRET,
            ("configmaps", "none"): None,
        },
        pod=pod_body({"name": "a"}, meta={"labels": {"x": "y"}}),
        pod_ips=("10.42.0.9",),
        host_ips=("10.0.0.1",),
    )
    assert env == {
        "C_k": "v",
        "C_two": "2",
        "pw": "s3cret",
        "ONE": "v",
        "PW": "s3cret",
        "NODE": "n1",
        "IP": "10.42.0.9",
        "HOST": "10.0.0.1",
        "L": "y",
    }


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, 'configmap "x" not found'),
        ({"envFrom": [{"secretRef": {"name": "x"}}]}, 'secret "x" not found'),
        (
            {"env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}]},
            'configmap "x" not found',
        ),
        (
            {"env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]},
            "couldn't find key no in ConfigMap ns/cm",
        ),
        (
            {"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "no"}}}]},
            "couldn't find key no in Secret ns/sec",
        ),
    ],
)
def test_what_is_missing_is_said_in_the_kubelets_words(
    container: dict[str, Any], message: str
) -> None:
    with pytest.raises(RuntimeFailure) as failure:
        env_of(container, configs={("configmaps", "cm"): CONFIG, ("secrets", "sec"): SECRET})
    assert failure.value.reason == "CreateContainerConfigError"
    assert failure.value.message == message


def test_references_name_what_has_to_be_fetched() -> None:
    assert references(
        {
            "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
            "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
        }
    ) == {("configmaps", "a"), ("secrets", "b"), ("configmaps", "c")}


def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": [*ports]},
    }


def test_services_as_variables() -> None:
    services = (
        service("kubernetes", "default", "10.43.0.1", {"name": "https", "port": 443}),
        service("my-db", "ns", "10.43.0.7", {"port": 5432, "protocol": "TCP"}),
        service("headless", "ns", "None", {"port": 1}),
        service("other", "elsewhere", "10.43.0.8", {"port": 2}),
    )
    env = env_of({}, services=services)
    assert env["KUBERNETES_SERVICE_HOST"] == "10.43.0.1"
    assert env["KUBERNETES_SERVICE_PORT"] == "443"
    assert env["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert env["KUBERNETES_PORT"] == "tcp://10.43.0.1:443"
    assert env["KUBERNETES_PORT_443_TCP_ADDR"] == "10.43.0.1"
    assert env["MY_DB_SERVICE_HOST"] == "10.43.0.7"
    assert env["MY_DB_PORT_5432_TCP_PROTO"] == "tcp"
    assert not any(k.startswith(("HEADLESS", "OTHER")) for k in env)
    without = env_of({}, services=services, pod=pod_body({"name": "a"}, enableServiceLinks=False))
    assert set(without) == {k for k in env if k.startswith("KUBERNETES")}


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.memory"}, "1000"),
        ({"resource": "requests.cpu"}, "0"),
    ],
)
def test_resource_fields(ref: dict[str, Any], wanted: str) -> None:
    container = {
        "name": "a",
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
        "env": [{"name": "R", "valueFrom": {"resourceFieldRef": ref}}],
    }
    env = env_of(container, pod=pod_body(container), allocatable={"memory": "1000", "cpu": "4"})
    assert env["R"] == wanted


def test_resources_become_shares_and_quotas() -> None:
    spec = spec_of(
        {
            "resources": {
                "limits": {"cpu": "500m", "memory": "64Mi"},
                "requests": {"cpu": "250m"},
            }
        }
    )
    assert (spec.cpu_shares, spec.cpu_quota_us, spec.memory_limit) == (256, 50_000, 64 << 20)
    bare = spec_of({})
    assert (bare.cpu_shares, bare.cpu_quota_us, bare.memory_limit) == (2, 0, 0)
    assert bare.oom_score_adj == 1000
    tiny = spec_of({"resources": {"limits": {"cpu": "1m"}}})
    assert tiny.cpu_quota_us == 1000
    assert tiny.cpu_shares == 2


def test_oom_scores_follow_the_quality_of_service() -> None:
    whole = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    pod = pod_body({"name": "a", "resources": whole})
    pod["status"] = {}
    assert qos_class(pod["spec"]) == "Guaranteed"
    assert spec_of({"resources": whole}, Context(pod=pod)).oom_score_adj == -997
    some = {"requests": {"memory": "1Gi"}}
    pod = pod_body({"name": "a", "resources": some})
    pod["status"] = {}
    assert qos_class(pod["spec"]) == "Burstable"
    context = Context(pod=pod, allocatable={"memory": "4Gi"})
    assert spec_of({"resources": some}, context).oom_score_adj == 750


def test_security_of_pod_and_container() -> None:
    container = {
        "name": "a",
        "securityContext": {
            "runAsUser": 7,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        },
    }
    pod = pod_body(
        container,
        securityContext={
            "runAsUser": 1,
            "runAsGroup": 2,
            "fsGroup": 3,
            "supplementalGroups": [4, 3],
        },
    )
    spec = spec_of(container, Context(pod=pod))
    assert (spec.uid, spec.gid, spec.groups) == (7, 2, (4, 3))
    assert (spec.cap_add, spec.cap_drop) == (("NET_ADMIN",), ("ALL",))
    assert spec.read_only_root
    assert not spec.allow_privilege_escalation
    assert spec.seccomp == "RuntimeDefault"
    privileged = spec_of({"securityContext": {"privileged": True}})
    assert (privileged.privileged, privileged.seccomp) == (True, "Unconfined")
    local = {"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}
    assert spec_of({"securityContext": local}).seccomp == "Localhost/p.json"


@pytest.mark.parametrize(
    ("security", "user", "message"),
    [
        ({"runAsUser": 5}, "", ""),
        ({}, "1000:1000", ""),
        ({}, "", "container has runAsNonRoot and image will run as root"),
        ({}, "0", "container has runAsNonRoot and image will run as root"),
        (
            {},
            "app",
            "container has runAsNonRoot and image has non-numeric user (app), "
            "cannot verify user is non-root",
        ),
        ({"runAsUser": 0}, "1", "container's runAsUser breaks non-root policy"),
    ],
)
def test_run_as_non_root(security: dict[str, Any], user: str, message: str) -> None:
    image = Image(id="sha256:x", user=user)
    container = {"securityContext": {"runAsNonRoot": True, **security}}
    if not message:
        assert spec_of(container, image=image).run_as_non_root
        return
    with pytest.raises(RuntimeFailure) as failure:
        spec_of(container, image=image)
    assert failure.value.message == f'{message} (pod: "p_ns(u)", container: a)'


def test_mounts_and_what_the_kubelet_adds() -> None:
    container = {
        "name": "a",
        "env": [{"name": "X", "value": "sub"}],
        "volumeMounts": [
            {"name": "v", "mountPath": "/data", "readOnly": True},
            {"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"},
            {"name": "v", "mountPath": "/x", "subPathExpr": "$(X)/y"},
            {"name": "v", "mountPath": "/p", "mountPropagation": "Bidirectional"},
        ],
    }
    context = Context(
        pod=pod_body(container),
        volumes={"v": "/vol/v"},
        sub_path=lambda base, sub: (f"{base}/{sub}", sub == "hosts"),
        extra=(
            Mount(source="/k/hosts", target="/etc/hosts", sub_file=True),
            Mount(source="/k/resolv", target="/etc/resolv.conf", sub_file=True),
        ),
    )
    assert spec_of(container, context).mounts == (
        Mount(source="/vol/v", target="/data", read_only=True),
        Mount(source="/vol/v/hosts", target="/etc/hosts", sub_file=True),
        Mount(source="/vol/v/sub/y", target="/x"),
        Mount(source="/vol/v", target="/p", propagation="rshared"),
        Mount(source="/k/resolv", target="/etc/resolv.conf", sub_file=True),
    )
    with pytest.raises(RuntimeFailure, match='cannot find volume "w"'):
        spec_of({"volumeMounts": [{"name": "w", "mountPath": "/w"}]})


@pytest.mark.parametrize(
    ("expression", "missing"),
    [("$(EMPTY)", "EMPTY"), ("a/$(NONE)/$(EMPTY)", "EMPTY, NONE"), ("$$(NONE)", "")],
)
def test_a_path_is_not_made_of_variables_without_value(expression: str, missing: str) -> None:
    container = {
        "env": [{"name": "EMPTY", "value": ""}],
        "volumeMounts": [{"name": "v", "mountPath": "/x", "subPathExpr": expression}],
    }
    context = Context(
        pod=pod_body(container), volumes={"v": "/v"}, sub_path=lambda base, sub: (base + sub, False)
    )
    if not missing:
        assert spec_of(container, context).mounts[0].source == "/v$(NONE)"
        return
    with pytest.raises(RuntimeFailure) as failure:
        spec_of(container, context)
    assert failure.value.message == f"missing value for {missing}"


def test_sandbox_of_a_pod() -> None:
    pod = pod_body(
        {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        shareProcessNamespace=True,
        securityContext={"sysctls": [{"name": "net.x", "value": "1"}]},
        meta={"annotations": {"sampan.fake": "run=1", "other": "no"}},
    )
    spec = sandbox_spec(pod, id="s", attempt=1, node_name="n1", log_dir="/l")
    assert (spec.hostname, spec.share_pid, spec.sysctls) == ("p", True, {"net.x": "1"})
    assert (spec.cpu_quota_us, spec.memory_limit) == (200_000, 2 << 30)
    assert spec.labels["io.kubernetes.pod.uid"] == "u"
    assert spec.labels["sampan.fake"] == "run=1"
    assert "other" not in spec.labels
    open_ended = sandbox_spec(
        pod_body({"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}),
        id="s",
        attempt=0,
        node_name="n1",
    )
    assert (open_ended.cpu_quota_us, open_ended.memory_limit) == (0, 0)


@pytest.mark.parametrize(
    ("spec", "name", "full"),
    [
        ({}, "p", ""),
        ({"hostname": "h"}, "h", ""),
        ({"hostname": "h", "subdomain": "s"}, "h", "s.ns.svc.cluster.local"),
        (
            {"subdomain": "s", "setHostnameAsFQDN": True},
            "p.s.ns.svc.cluster.local",
            "s.ns.svc.cluster.local",
        ),
        ({"hostNetwork": True}, "n1", ""),
        ({"hostnameOverride": "o.example", "hostname": "h", "subdomain": "s"}, "o.example", ""),
    ],
)
def test_hostnames(spec: dict[str, Any], name: str, full: str) -> None:
    pod = pod_body(**spec)
    assert hostname(pod, "n1") == name
    assert domain(pod) == full


def test_a_full_name_the_kernel_does_not_take_is_refused() -> None:
    fits = pod_body(hostname="h" * (64 - len(".s.ns.svc.cluster.local")), subdomain="s",
                    setHostnameAsFQDN=True)  # fmt: skip
    assert len(sandbox_spec(fits, id="s", attempt=1, node_name="n1").hostname) == 64
    long = pod_body(hostname="h" * 50, subdomain="s", setHostnameAsFQDN=True)
    with pytest.raises(RuntimeFailure, match=r"too long \(64 characters is the max, 73 characters"):
        sandbox_spec(long, id="s", attempt=1, node_name="n1")


def test_the_hosts_file_names_the_label_once_where_the_pod_is_called_by_its_full_name() -> None:
    pod = pod_body(hostname="h", subdomain="s", setHostnameAsFQDN=True)
    text = hosts_file(pod, ips=("10.42.0.2",), hostname=host_label(pod), domain=domain(pod))
    assert "10.42.0.2\th.s.ns.svc.cluster.local\th\n" in text


def test_hosts_file() -> None:
    pod = pod_body(
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a.example", "b.example"]}], subdomain="s"
    )
    text = hosts_file(
        pod, ips=("10.42.0.2",), hostname="p", domain="s.ns.svc.cluster.local"
    ).splitlines()
    assert text[0] == "# Kubernetes-managed hosts file."
    assert "127.0.0.1\tlocalhost" in text
    assert "10.42.0.2\tp.s.ns.svc.cluster.local\tp" in text
    assert text[-2:] == ["# Entries added by HostAliases.", "1.2.3.4\ta.example\tb.example"]
    own = hosts_file(pod_body(hostNetwork=True), ips=(), hostname="n1", of_host="127.0.0.1 x\n")
    assert own == "# Kubernetes-managed hosts file (host network).\n127.0.0.1 x\n"


HOST = "# by hand\nnameserver 9.9.9.9\nsearch lan\noptions timeout:1\n"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {},
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.43.0.10\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "search lan\nnameserver 9.9.9.9\noptions timeout:1\n"),
        ({"hostNetwork": True}, "search lan\nnameserver 9.9.9.9\noptions timeout:1\n"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.43.0.10\noptions ndots:5\n",
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                },
            },
            "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], wanted: str) -> None:
    assert resolv_conf(pod_body(**spec), of_host=HOST) == wanted


def _own(**config: Any) -> dict[str, Any]:
    return {"dnsConfig": config}


LONG = "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + "." + "w" * 60  # 243 characters


@pytest.mark.parametrize(
    ("spec", "text", "told"),
    [
        (  # the cluster's first, then the pod's own, each once; three at most
            _own(nameservers=["1.1.1.1", "10.43.0.10", "1.1.1.2", "1.1.1.3"],
                 searches=["lan", "x"]),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan x\n"
            "nameserver 10.43.0.10\nnameserver 1.1.1.1\nnameserver 1.1.1.2\noptions ndots:5\n",
            ["Nameserver limits were exceeded, some nameservers have been omitted, the applied "
             "nameserver line is: 10.43.0.10 1.1.1.1 1.1.1.2"],
        ),
        (  # an option of the pod takes the place of the policy's
            _own(options=[{"name": "ndots", "value": "1"}, {"name": "use-vc"}]),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.43.0.10\noptions ndots:1 use-vc\n",
            [],
        ),
        (  # the host's, and more
            {"dnsPolicy": "Default", **_own(nameservers=["1.1.1.1"], searches=["x"],
                                            options=[{"name": "timeout", "value": "9"}])},
            "search lan x\nnameserver 9.9.9.9\nnameserver 1.1.1.1\noptions timeout:9\n",
            [],
        ),
        (
            {"dnsPolicy": "None",
             **_own(nameservers=["1.1.1.1"], searches=[f"s{i}" for i in range(33)])},
            "search " + " ".join(f"s{i}" for i in range(32)) + "\nnameserver 1.1.1.1\n",
            ["Search Line limits were exceeded, some search paths have been omitted, the applied "
             "search line is: " + " ".join(f"s{i}" for i in range(32))],
        ),
        (  # 2,048 characters at most
            {"dnsPolicy": "None",
             **_own(nameservers=["1.1.1.1"], searches=[f"{i}.{LONG}" for i in range(9)])},
            "search " + " ".join(f"{i}.{LONG}" for i in range(8)) + "\nnameserver 1.1.1.1\n",
            ["Search Line limits were exceeded, some search paths have been omitted, the applied "
             "search line is: " + " ".join(f"{i}.{LONG}" for i in range(8))],
        ),
        (  # nor a name that no resolver would survive
            {"dnsPolicy": "None", **_own(nameservers=["1.1.1.1"], searches=["a" * 254, "b"])},
            "search b\nnameserver 1.1.1.1\n",
            ["Search Line limits were exceeded, some search paths have been omitted, the applied "
             "search line is: b"],
        ),
    ],
)  # fmt: skip
def test_what_resolvers_do_not_take_is_left_out_and_told(
    spec: dict[str, Any], text: str, told: list[str]
) -> None:
    assert resolver(pod_body(**spec), of_host=HOST) == (text, told)


def test_a_pod_as_a_whole_requests_and_is_limited() -> None:
    whole = {"requests": {"cpu": "1", "memory": "500Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    first = {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}
    pod = pod_body(first, {"name": "b"}, resources=whole)
    pod["status"]["qosClass"] = "Burstable"
    limits = pod_limits(pod["spec"])
    assert limits == Limits(1024, 200_000, 1 << 30)
    context = Context(pod=pod, allocatable={"memory": "1000Mi"})
    # 400 MiB are requested by no container: half of them for each.
    scores = [
        container_spec(context, c, id=c["name"], attempt=0).oom_score_adj
        for c in pod["spec"]["containers"]
    ]
    assert scores == [700, 800]


@pytest.mark.parametrize(("policy", "strict"), [(None, False), ("Merge", False), ("Strict", True)])
def test_the_policy_of_groups_is_the_pods(policy: str | None, strict: bool) -> None:
    pod = pod_body({"name": "a"}, securityContext={"supplementalGroupsPolicy": policy})
    spec = container_spec(Context(pod=pod), pod["spec"]["containers"][0], id="x", attempt=0)
    assert spec.strict_groups is strict

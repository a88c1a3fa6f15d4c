"""Another API server behind ours, as users meet it: the example of ``examples/extension-server``
on this machine's loopback, a cluster in this process, and the real kubectl."""

from __future__ import annotations

import base64
import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sampan.api.call import Call, User
from sampan.api.errors import StatusError
from sampan.client.local import LocalTransport
from sampan.lib import tls
from sampan.testing.cluster import Cluster

SOURCE = Path(__file__).parents[2] / "examples/extension-server/server.py"
NAME = "v1.orchard.example"
API_SERVICES = "apiservices.apiregistration.k8s.io"
GALA = json.dumps({
    "apiVersion": "orchard.example/v1", "kind": "Fruit", "metadata": {"name": "gala"},
    "spec": {"colour": "red"},
})  # fmt: skip


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("extension_server", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def service(port: int, ca: bytes = b"", **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "group": "orchard.example", "version": "v1", "groupPriorityMinimum": 2000,
        "versionPriority": 10, "service": {"namespace": "default", "name": "fruit", "port": port},
        **more,
    }  # fmt: skip
    if ca:
        spec["caBundle"] = base64.b64encode(ca).decode()
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": NAME}, "spec": spec}  # fmt: skip


class Orchard:
    """A cluster, the server, and its APIService."""

    def __init__(self, cluster: Cluster, files: Path) -> None:
        self.cluster = cluster
        self.ca = tls.new_authority("orchard", now=time.time())
        pair = tls.issue(self.ca, "fruit", now=time.time(), hosts=["fruit.default.svc"])
        for name, data in (("crt", pair.certificate), ("key", pair.key)):
            (files / f"tls.{name}").write_bytes(data)
        config = cluster.client.get(
            "configmaps", "extension-apiserver-authentication", "kube-system"
        )["data"]
        trust = (config["requestheader-client-ca-file"],
                 json.loads(config["requestheader-allowed-names"]))  # fmt: skip
        self.server = example().make_server(
            str(files / "tls.crt"), str(files / "tls.key"), trust, host="127.0.0.1"
        )
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        cluster.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: fruit}, "
            "spec: {type: ExternalName, externalName: localhost}}"
        )

    def register(self, **more: Any) -> None:
        ca = b"" if more.get("insecureSkipTLSVerify") else self.ca.certificate
        self.cluster.client.create(API_SERVICES, service(self.port, ca, **more))
        self.cluster.until(lambda: self.condition()["status"] == "True")

    def condition(self) -> dict[str, Any]:
        status = self.cluster.client.get(API_SERVICES, NAME).get("status") or {}
        found: dict[str, Any] = (status.get("conditions") or [{"status": ""}])[0]
        return found


@pytest.fixture
def orchard(tmp_path: Path) -> Iterator[Orchard]:
    with Cluster(virtual=False) as cluster:
        cluster.until(lambda: cluster.client.list("configmaps", "kube-system"))
        cluster.until(lambda: any(
            c["metadata"]["name"].startswith("extension")
            for c in cluster.client.list("configmaps", "kube-system")
        ))  # fmt: skip
        made = Orchard(cluster, tmp_path)
        try:
            yield made
        finally:
            made.server.shutdown()
            made.server.server_close()


def test_kubectl_does_not_see_a_difference(orchard: Orchard) -> None:
    orchard.register()
    kubectl = orchard.cluster.kubectl
    rows = {r.split()[0]: r.split() for r in kubectl("get", "apiservices").splitlines()}
    assert rows["NAME"] == ["NAME", "SERVICE", "AVAILABLE", "AGE"]
    assert rows[NAME][1:3] == ["default/fruit", "True"]
    assert rows["v1.apps"][1:3] == rows["v1beta1.metrics.k8s.io"][1:3] == ["Local", "True"]
    listed = kubectl("api-resources", "--api-group", "orchard.example")
    assert "fruits" in listed and "orchard.example/v1" in listed
    assert "fruit.orchard.example/gala created" in kubectl("create", "-f", "-", stdin=GALA)
    assert "gala" in kubectl("get", "fr")
    assert json.loads(kubectl("get", "fruit", "gala", "-o", "json"))["spec"] == {"colour": "red"}
    assert "Colour it has when it is ripe" in kubectl("explain", "fruit.spec.colour")
    assert "orchard.example/v1" in kubectl("api-versions")
    kubectl("label", "fruit", "gala", "sort=sweet")
    assert json.loads(kubectl("get", "fruit", "gala", "-o", "json"))["metadata"]["labels"] == {
        "sort": "sweet"
    }
    assert "gala" in kubectl("get", "all")
    assert '"gala" deleted' in kubectl("delete", "fruit", "gala")


def test_who_asks_is_told_and_what_is_no_right_is_refused(orchard: Orchard) -> None:
    orchard.register()
    kubectl = orchard.cluster.kubectl
    me = json.loads(kubectl("get", "identities", "me", "-o", "json"))
    assert me["user"] == "kubernetes-admin"
    assert me["groups"] == ["system:masters", "system:authenticated"]
    assert "authentication.kubernetes.io%2fcredential-id" in me["extra"]
    assert me["sawAuthorization"] is False
    with pytest.raises(AssertionError, match="forbidden"):
        kubectl("get", "fruits", "--as", "jane")
    orchard.cluster.apply("""
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: pickers},
 rules: [{apiGroups: [orchard.example], resources: [fruits, identities], verbs: [get, list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: pickers},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pickers},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]}
""")
    kubectl("get", "fruits", "--as", "jane")
    me = json.loads(kubectl("get", "identities", "me", "-o", "json", "--as", "jane"))
    assert (me["user"], me["groups"]) == ("jane", ["system:authenticated"])
    with pytest.raises(AssertionError, match="forbidden"):
        kubectl("delete", "fruit", "gala", "--as", "jane")


def test_a_watch_goes_through(orchard: Orchard) -> None:
    orchard.register()
    seen: list[str] = []

    def pick() -> None:
        time.sleep(0.5)
        orchard.cluster.kubectl("create", "-f", "-", stdin=GALA)

    picking = threading.Thread(target=pick)
    picking.start()
    out = orchard.cluster.kubectl(
        "wait", "--for=create", "fruit/gala", "--timeout=20s"
    )  # a watch of one name
    seen.append(out)
    picking.join()
    assert "condition met" in seen[0]


def test_without_a_certificate_check_where_that_was_asked_for(orchard: Orchard) -> None:
    orchard.register(insecureSkipTLSVerify=True)
    assert orchard.cluster.kubectl("get", "fruits") == ""
    assert orchard.condition() | {"lastTransitionTime": ""} == {
        "type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed",
        "lastTransitionTime": "",
    }  # fmt: skip


def test_a_server_that_nobody_vouches_for_is_not_believed(orchard: Orchard) -> None:
    other = tls.new_authority("stranger", now=time.time())
    cluster = orchard.cluster
    cluster.client.create(API_SERVICES, service(orchard.port, other.certificate))
    cluster.until(lambda: orchard.condition()["status"] == "True")  # as upstream: not checked there
    with pytest.raises(AssertionError, match="ServiceUnavailable"):
        cluster.kubectl("get", "--raw", "/apis/orchard.example/v1/fruits")
    plane = cluster.world.plane
    jane = LocalTransport(plane.api, User("x", ("system:masters",)))

    async def ask() -> str:
        with pytest.raises(StatusError) as refused:
            await jane.call(Call(verb="list", resource="fruits.orchard.example"))
        return str(refused.value)

    assert "currently unable to handle the request" in cluster.run(ask())


def test_a_server_that_is_gone_is_not_available(orchard: Orchard) -> None:
    orchard.register()
    orchard.server.shutdown()
    orchard.server.server_close()
    cluster = orchard.cluster
    cluster.client.patch(API_SERVICES, NAME, {"metadata": {"labels": {"a": "b"}}})
    cluster.until(lambda: orchard.condition()["status"] == "False")
    held = orchard.condition()
    url = f"https://localhost:{orchard.port}/apis/orchard.example/v1"
    assert held["reason"] == "FailedDiscoveryCheck"
    assert held["message"] == (
        f'failing or missing response from {url}: Get "{url}": dial tcp localhost:{orchard.port}: '
        "connect: connection refused"
    )
    row = cluster.kubectl("get", "apiservice", NAME, "--no-headers").split(maxsplit=2)[2]
    assert row.startswith("False (FailedDiscoveryCheck)")
    with pytest.raises(AssertionError, match="the server is currently unable to handle"):
        cluster.kubectl("get", "--raw", "/apis/orchard.example/v1/fruits")
    assert "deployments" in cluster.kubectl("api-resources", "--api-group", "apps")
    cluster.client.delete(API_SERVICES, NAME)
    cluster.until(lambda: "orchard" not in cluster.kubectl("api-versions"))


def test_components_ask_through_it_too(orchard: Orchard) -> None:
    orchard.register()
    plane = orchard.cluster.world.plane
    admin = plane.client(User("admin", ("system:masters",)))

    async def ask() -> tuple[str, int, str]:
        made = await admin.create(
            "fruits.orchard.example",
            {"apiVersion": "orchard.example/v1", "kind": "Fruit", "metadata": {"name": "fuji"}},
            "default",
        )
        page = await admin.list("fruits.orchard.example", "default")
        with pytest.raises(StatusError) as missing:
            await admin.get("fruits.orchard.example", "none", "default")
        return made.name, len(page.items), missing.value.message

    assert orchard.cluster.run(ask()) == ("fuji", 1, 'fruits.orchard.example "none" not found')


def test_metrics_a_test_says_are_served_and_kubectl_asks_for_versions() -> None:
    with Cluster(virtual=False) as cluster:
        cluster.metrics.pods("hits", {"a": 7, "gone": 1})
        cluster.metrics.object("hits", "ingresses.networking.k8s.io", "main", 2.5)
        cluster.metrics.object("hits", "namespaces", "default", "3k")
        cluster.metrics.external("queue", 4, labels={"q": "a"})
        cluster.metrics.external("queue", 5, labels={"q": "b"})
        cluster.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: x}}, "
            "spec: {containers: [{name: c, image: i}]}}"
        )
        kubectl = cluster.kubectl
        cluster.until(lambda: "False" not in kubectl("get", "apiservices"))

        def values(path: str) -> list[str]:
            return [i["value"] for i in json.loads(kubectl("get", "--raw", path))["items"]]

        custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default"
        assert values(f"{custom}/pods/*/hits?labelSelector=app%3Dx") == ["7"]
        assert values(f"{custom}/pods/*/hits?labelSelector=app%3Dy") == []
        assert values(f"{custom}/ingresses.networking.k8s.io/main/hits") == ["2500m"]
        assert values(f"{custom}/metrics/hits") == ["3k"]
        outside = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue"
        assert values(outside) == ["4", "5"] and values(f"{outside}?labelSelector=q%3Db") == ["5"]
        with pytest.raises(AssertionError, match="could not find the metric other for external"):
            values(outside.replace("queue", "other"))
        cluster.metrics.forget("queue")
        with pytest.raises(AssertionError, match="could not find the metric queue"):
            values(outside)
        listed = kubectl("get", "--raw", "/apis/custom.metrics.k8s.io/v1beta1")
        assert {r["name"] for r in json.loads(listed)["resources"]} == {
            "pods/hits", "ingresses.networking.k8s.io/hits", "namespaces/hits",
        }  # fmt: skip


def test_a_version_after_a_full_name_is_asked_for_and_one_after_a_short_name_is_not() -> None:
    """kubectl's own rule: it expands a short name to a resource, and drops the version."""
    with Cluster(virtual=False) as cluster:
        cluster.apply(
            "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, "
            "spec: {maxReplicas: 3, "
            "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}"
        )

        def version(what: str) -> Any:
            return json.loads(cluster.kubectl("get", what, "h", "-o", "json"))["apiVersion"]

        assert version("horizontalpodautoscalers.v1.autoscaling") == "autoscaling/v1"
        assert version("horizontalpodautoscaler.v1.autoscaling") == "autoscaling/v1"
        assert version("horizontalpodautoscalers.v2.autoscaling") == "autoscaling/v2"
        assert version("hpa.v1.autoscaling") == version("hpa") == "autoscaling/v2"


def test_a_namespace_takes_what_is_elsewhere_along_and_waits_for_who_is_silent(
    orchard: Orchard,
) -> None:
    orchard.register()
    cluster = orchard.cluster
    kubectl = cluster.kubectl
    kubectl("create", "namespace", "grove")
    kubectl("create", "-n", "grove", "-f", "-", stdin=GALA)
    kubectl("create", "-f", "-", stdin=GALA)
    kubectl("delete", "namespace", "grove", "--timeout=30s")
    assert kubectl("get", "fruits", "-A", "--no-headers").split()[:2] == ["default", "gala"]
    kubectl("create", "namespace", "grove")
    orchard.server.shutdown()
    orchard.server.server_close()
    cluster.client.patch(API_SERVICES, NAME, {"metadata": {"labels": {"a": "b"}}})
    cluster.until(lambda: orchard.condition()["status"] == "False")
    kubectl("delete", "namespace", "grove", "--wait=false")

    def failure() -> Any:
        conditions = cluster.client.get("namespaces", "grove")["status"].get("conditions") or ()
        return [c for c in conditions if c["reason"] == "DiscoveryFailed"]

    (told,) = cluster.until(failure)
    assert told["message"].endswith(
        "orchard.example/v1: stale GroupVersion discovery: orchard.example/v1"
    )
    kubectl("delete", "apiservice", NAME)
    kubectl("wait", "--for=delete", "namespace/grove", "--timeout=30s")

"""Another API server in a pod (examples/extension-server), and the real kubectl: found, asked,
watched, told who asks, and missed when it is gone."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.app.stand_ins import PYTHON, archive
from sampan.lib import tls
from sampan.testing.e2e import Cluster

NS, API = "orchard", "v1.orchard.example"
SERVER = Path(__file__).parents[2] / "examples/extension-server/server.py"
READER = "extension-apiserver-authentication-reader"
RBAC = "rbac.authorization.k8s.io"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def objects() -> list[dict[str, Any]]:
    """All it takes, in the order to create it."""
    ca = tls.new_authority("orchard", now=time.time())
    pair = tls.issue(ca, "fruit", now=time.time(), hosts=[f"fruit.{NS}.svc"])
    meta = {"name": "fruit", "namespace": NS}
    secret = {"tls.crt": text(pair.certificate), "tls.key": text(pair.key)}
    subject = {"kind": "ServiceAccount", "name": "fruit", "namespace": NS}
    reader = {"apiGroup": RBAC, "kind": "Role", "name": READER}
    container = {
        "name": "server", "image": "python:3.11", "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "/app/server.py"], "ports": [{"containerPort": 8443}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "app", "mountPath": "/app"},
                         {"name": "tls", "mountPath": "/tls"}],
    }  # fmt: skip
    pod = {
        "serviceAccountName": "fruit", "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "app", "configMap": {"name": "fruit"}},
                    {"name": "tls", "secret": {"secretName": "fruit"}}],
    }  # fmt: skip
    labels = {"app": "fruit"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding",
         "metadata": {"name": "orchard-reads-authentication", "namespace": "kube-system"},
         "roleRef": reader, "subjects": [subject]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
         "data": {"server.py": SERVER.read_text()}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/tls",
         "data": secret},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {
            "selector": labels, "ports": [{"port": 443, "targetPort": 8443}]}},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API},
         "spec": {"group": "orchard.example", "version": "v1", "groupPriorityMinimum": 2000,
                  "versionPriority": 10, "caBundle": text(ca.certificate),
                  "service": {"name": "fruit", "namespace": NS}}},
    ]  # fmt: skip


@pytest.fixture
def orchard(cluster: Cluster) -> Iterator[Cluster]:
    cluster.sampan("image", "load", str(archive("python", (PYTHON,))))
    cluster.kubectl("create", "namespace", NS)
    try:
        made = {"apiVersion": "v1", "kind": "List", "items": objects()}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
        yield cluster
    finally:
        cluster.kubectl("delete", "apiservice", API, check=False)
        cluster.kubectl("delete", "rolebinding", "orchard-reads-authentication", "-n",
                        "kube-system", check=False)  # fmt: skip
        cluster.kubectl("delete", "namespace", NS)


def available(c: Cluster) -> str:
    """The AVAILABLE column."""
    row = c.kubectl("get", "apiservice", API, "--no-headers", check=False)
    return row.split(maxsplit=2)[2].rsplit(maxsplit=1)[0] if API in row else ""


def test_another_api_server_in_a_pod(orchard: Cluster) -> None:
    c = orchard
    c.until("it is available", lambda: available(c) == "True", timeout=150)
    listed = c.kubectl("api-resources", "--api-group", "orchard.example", "--no-headers")
    assert "fruits" in listed and "identities" in listed
    gala = {"apiVersion": "orchard.example/v1", "kind": "Fruit", "metadata": {"name": "gala"},
            "spec": {"colour": "red"}}  # fmt: skip
    said = c.kubectl("apply", "-n", NS, "-f", "-", stdin=json.dumps(gala))
    assert "fruit.orchard.example/gala created" in said
    assert c.kubectl("get", "fr", "-n", NS, "-o", "name").split() == ["fruit.orchard.example/gala"]
    assert "Colour it has when it is ripe" in c.kubectl("explain", "fruit.spec.colour")
    c.kubectl("annotate", "fruit", "gala", "-n", NS, "picked=no")
    c.kubectl("wait", "fruit/gala", "-n", NS, "--for=jsonpath={.spec.colour}=red", "--timeout=60s")
    me = json.loads(c.kubectl("get", "identities", "me", "-o", "json"))
    assert (me["user"], me["sawAuthorization"]) == ("kubernetes-admin", False)
    assert "system:masters" in me["groups"]
    refused = c.kubectl("get", "fruits", "-n", NS, "--as", "jane", check=False)
    assert 'User "jane" cannot list resource "fruits" in API group "orchard.example"' in refused
    # From a pod, with its service account: the same API server, the same way on.
    c.kubectl("create", "rolebinding", "me", "-n", NS, "--clusterrole=cluster-admin",
              f"--serviceaccount={NS}:fruit")  # fmt: skip
    ask = (
        "import ssl,urllib.request as u;p='/var/run/secrets/kubernetes.io/serviceaccount/';"
        f"r=u.Request('https://kubernetes.default.svc/apis/orchard.example/v1/namespaces/{NS}/"
        "fruits/gala',headers={'Authorization':'Bearer '+open(p+'token').read()});"
        "print(u.urlopen(r,context=ssl.create_default_context(cafile=p+'ca.crt')).read().decode())"
    )
    inside = c.kubectl("exec", "-n", NS, "deploy/fruit", "--", "python3", "-c", ask)
    assert json.loads(inside)["metadata"]["name"] == "gala"
    assert f"system:serviceaccount:{NS}:fruit" in c.kubectl("logs", "-n", NS, "deploy/fruit")
    assert '"gala" deleted' in c.kubectl("delete", "fruit", "gala", "-n", NS)
    # Gone: told as what it is, and nobody else is disturbed.
    c.kubectl("scale", "deploy/fruit", "-n", NS, "--replicas=0")
    c.until("it is missed", lambda: available(c) == "False (MissingEndpoints)", timeout=60)
    gone = c.kubectl("get", "--raw", "/apis/orchard.example/v1/fruits", check=False)
    assert "the server is currently unable to handle the request" in gone
    assert "fruit" in c.kubectl("get", "deployments", "-n", NS)
    c.kubectl("scale", "deploy/fruit", "-n", NS, "--replicas=1")
    c.until("it is back", lambda: available(c) == "True", timeout=90)
    assert c.kubectl("get", "fruits", "-n", NS, "-o", "name") == ""

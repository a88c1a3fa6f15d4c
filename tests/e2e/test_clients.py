"""Every kubectl of the machine, and clients that speak plain HTTP."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.testing.e2e import Cluster, kubectl_path


def binaries() -> list[str]:
    """kubectl as tests use it, and whatever versions lie beside it."""
    main = Path(kubectl_path())
    beside = sorted(Path(main).resolve().parent.glob("kubectl.1.[23]*"))
    return [str(main), *map(str, beside)]


@pytest.fixture(scope="module")
def ns(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("create", "ns", "clients")
    yield cluster
    cluster.kubectl("delete", "ns", "clients", "--timeout=60s")


MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "1000"]}
"""


@pytest.mark.parametrize("binary", binaries(), ids=lambda b: Path(b).name)
def test_each_kubectl_does_the_daily_things(cluster: Cluster, binary: str) -> None:
    mine = Cluster(cluster.data_dir, cluster.kubeconfig, binary)
    # A namespace of its own: the pods of another version's run may still be terminating.
    namespace = Path(binary).name.replace(".", "-")
    mine.kubectl("create", "ns", namespace)

    def k(*args: str, **more: Any) -> str:
        return mine.kubectl("-n", namespace, *args, **more)

    assert "deployment.apps/web created" in k("apply", "-f", "-", stdin=MANIFEST)
    k("rollout", "status", "deployment/web", "--timeout=30s")
    assert "deployment.apps/web unchanged" in k("apply", "-f", "-", stdin=MANIFEST)
    changed = MANIFEST.replace("replicas: 2", "replicas: 3")
    assert "deployment.apps/web configured" in k("apply", "-f", "-", stdin=changed)
    k("rollout", "status", "deployment/web", "--timeout=30s")
    assert "Pod Template:" in k("describe", "deployment", "web")
    assert "3/3" in k("get", "deploy", "web", "-o", "wide")
    (name, *_) = k("get", "pods", "-o", "name", "-l", "app=web").split()
    assert "Successfully assigned" in k("describe", name)
    assert k("get", name, "-o", "yaml").startswith("apiVersion: v1")
    # Over SPDY before 1.31, over WebSocket since.
    assert k("exec", name, "--", "echo", "hello") == "hello\n"
    assert k("exec", "-i", name, "--", "cat", stdin="to and fro\n") == "to and fro\n"
    failed = k("exec", name, "--", "sh", "-c", "exit 9", check=False)
    assert "exit code 9" in failed
    k("label", name, "touched=yes")
    k("annotate", name, "note=here")
    assert name.split("/")[1] in k("get", "pods", "-l", "touched=yes")
    k("scale", "deployment/web", "--replicas=1")
    k("rollout", "restart", "deployment/web")
    k("rollout", "status", "deployment/web", "--timeout=30s")
    k("patch", "deployment", "web", "--type=json", "-p",
      '[{"op": "replace", "path": "/spec/replicas", "value": 0}]')  # fmt: skip
    assert "apps/v1" in k("api-versions") and "deployments" in k("api-resources")
    assert "replicas" in k("explain", "deployment.spec")
    assert k("auth", "can-i", "create", "pods") == "yes\n"
    k("create", "configmap", "c", "--from-literal=a=b")
    k("delete", "configmap", "c")
    k("delete", "-f", "-", "--timeout=30s", stdin=MANIFEST)
    gone = k("get", "deploy", "web", check=False)
    assert 'Error from server (NotFound): deployments.apps "web" not found' in gone
    mine.kubectl("delete", "ns", namespace, "--timeout=60s")


@pytest.mark.parametrize("binary", binaries()[:1] + binaries()[1:2], ids=lambda b: Path(b).name)
def test_server_side_apply(ns: Cluster, binary: str, tmp_path: Path) -> None:
    mine = Cluster(ns.data_dir, ns.kubeconfig, binary)

    def k(*args: str, **more: Any) -> str:
        return mine.kubectl("-n", "clients", *args, **more)

    def write(**data: str) -> str:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": data}
        (tmp_path / "m.json").write_text(json.dumps(body))
        return str(tmp_path / "m.json")

    def data() -> Any:
        return ns.get("-n", "clients", "configmap", "ssa")["data"]

    k("delete", "configmap", "ssa", "--ignore-not-found")
    # What kubectl applied on its own before is taken over, and its old fields go.
    k("apply", "-f", write(a="1", gone="1"))
    assert "serverside-applied" in k("apply", "--server-side", "-f", write(a="2"))
    k("apply", "--server-side", "-f", write(a="2"))
    assert data() == {"a": "2"}
    refused = k(
        "apply", "--server-side", "--field-manager=other", "-f", write(a="3", b="3"), check=False
    )
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in refused
    again = ("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f")
    k(*again, write(a="3", b="3"), "--dry-run=server")
    assert data() == {"a": "2"}
    changes = k("diff", "--server-side", "--force-conflicts", "--field-manager=other", "-f",
                write(a="3", b="3"), check=False)  # fmt: skip
    assert "+  b: " in changes
    k(*again, write(a="3", b="3"))
    k("apply", "--server-side", "-f", write(c="1"))
    assert data() == {"a": "3", "b": "3", "c": "1"}


@pytest.mark.parametrize("binary", binaries(), ids=lambda b: Path(b).name)
def test_ports_of_a_pod_are_forwarded(ns: Cluster, binary: str) -> None:
    """To a port that is open on the pod's own loopback only."""
    mine = Cluster(ns.data_dir, ns.kubeconfig, binary)
    if "web" not in mine.kubectl("get", "pods", "-n", "clients", "-o", "name"):
        quick = json.dumps({"spec": {"terminationGracePeriodSeconds": 1}})
        script = "echo served > /tmp/index.html; exec httpd -f -p 127.0.0.1:8000 -h /tmp"
        mine.kubectl(
            "run", "web", "-n", "clients", "--image=busybox",
            "--image-pull-policy=IfNotPresent", f"--overrides={quick}", "--command", "--",
            "sh", "-c", script,
        )  # fmt: skip
    mine.kubectl("wait", "-n", "clients", "pod/web", "--for=condition=Ready", "--timeout=60s")
    forwarding = subprocess.Popen(
        mine.kubectl_command("port-forward", "-n", "clients", "pod/web", ":8000",
                             "--address=127.0.0.1"),
        stdout=subprocess.PIPE, env=mine.env, text=True,
    )  # fmt: skip
    try:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        found = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> 8000\n", line)
        assert found, line

        url = f"http://127.0.0.1:{found[1]}/index.html"

        def answer() -> bytes:
            try:
                with urllib.request.urlopen(url, timeout=10) as got:
                    return bytes(got.read())
            except OSError:
                return b""  # it does not listen yet

        ns.until("an answer", lambda: answer() == b"served\n", timeout=30)
    finally:
        forwarding.terminate()
        forwarding.wait()


class Http:
    """The API over plain HTTP requests, as the kubeconfig's user or as nobody."""

    def __init__(self, cluster: Cluster, tmp: Path, *, anonymous: bool = False) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        entry = config["clusters"][0]["cluster"]
        self.server = entry["server"]
        ca = base64.b64decode(entry["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=ca)
        if not anonymous:
            user = config["users"][0]["user"]
            pair = tmp / "pair.pem"
            pair.write_bytes(base64.b64decode(user["client-key-data"])
                             + base64.b64decode(user["client-certificate-data"]))  # fmt: skip
            self.tls.load_cert_chain(pair)

    def __call__(
        self, path: str, *, method: str = "GET", body: Any = None, accept: str = "",
        kind: str = "application/json",
    ) -> tuple[int, Any, dict[str, str]]:  # fmt: skip
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.server + path, data=data, method=method)
        request.add_header("Content-Type", kind)
        if accept:
            request.add_header("Accept", accept)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=10) as answer:
                text, code, headers = answer.read(), answer.status, dict(answer.headers)
        except urllib.error.HTTPError as e:
            text, code, headers = e.read(), e.code, dict(e.headers)
        try:
            return code, json.loads(text), headers
        except ValueError:
            return code, text, headers


def test_nobody_reaches_nothing_but_health_and_version(cluster: Cluster, tmp_path: Path) -> None:
    http = Http(cluster, tmp_path, anonymous=True)
    assert http("/healthz")[:2] == (200, b"ok")
    assert http("/readyz")[0] == http("/livez")[0] == 200
    assert http("/version")[1]["gitVersion"].startswith("v1.37.0")
    for path in ("/api", "/apis", "/api/v1/pods", "/metrics", "/openapi/v3", "/"):
        code, status, _ = http(path)
        assert (code, status["reason"]) == (403, "Forbidden"), path
        assert 'User "system:anonymous" cannot' in status["message"]


def test_errors_are_statuses(cluster: Cluster, tmp_path: Path) -> None:
    http = Http(cluster, tmp_path)
    base = "/api/v1/namespaces/default/configmaps"
    for code, reason, call in (
        (404, "NotFound", {"path": f"{base}/nosuch"}),
        (404, "NotFound", {"path": "/apis/none.example.com/v1/things"}),
        (400, "BadRequest", {"path": base, "method": "POST", "body": b"{not json"}),
        (413, "RequestEntityTooLarge", {"path": base, "method": "POST", "body": b" " * 4_000_000}),
        (415, "UnsupportedMediaType", {"path": f"{base}/x", "method": "PATCH", "body": {"a": 1},
                                       "kind": "application/apply-patch+cbor"}),
        (405, "MethodNotAllowed", {"path": base, "method": "PUT", "body": {"a": 1}}),
        (406, "NotAcceptable", {"path": base, "accept": "image/png"}),
        (422, "Invalid", {"path": base, "method": "POST", "body": {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_"}}}),
    ):  # fmt: skip
        got, status, _ = http(**call)  # type: ignore[arg-type]
        assert (got, status["kind"], status["reason"], status["code"]) == (
            code, "Status", reason, code,
        ), (call, status)  # fmt: skip


def test_tables_and_metadata(cluster: Cluster, tmp_path: Path) -> None:
    http = Http(cluster, tmp_path)
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    _, answer, _ = http("/api/v1/nodes", accept=table)
    names = [(c["name"], c["priority"]) for c in answer["columnDefinitions"]]
    assert names[:5] == [("Name", 0), ("Status", 0), ("Roles", 0), ("Age", 0), ("Version", 0)]
    assert all(priority == 1 for _, priority in names[5:])
    assert answer["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    _, answer, _ = http("/api/v1/nodes", accept=partial)
    assert set(answer["items"][0]) <= {"metadata", "kind", "apiVersion"}


def test_metrics(cluster: Cluster, tmp_path: Path) -> None:
    _, text, _ = Http(cluster, tmp_path)("/metrics")
    assert b"# TYPE apiserver_request_total counter" in text


def test_weak_tls_is_refused(cluster: Cluster) -> None:
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    address = server.removeprefix("https://")
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, "-tls1_1"],
        input=b"", capture_output=True, timeout=10,
    )  # fmt: skip
    assert done.returncode != 0

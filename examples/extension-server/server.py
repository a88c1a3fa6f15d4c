"""An API server of its own for one group, behind another one: kubectl sees its kinds as any others.

Standard library only. It serves ``orchard.example/v1``: ``fruits`` (namespaced, in memory: get,
list, watch, create, patch, delete, and an ``echo`` that upgrades the connection) and
``identities``, of which ``me`` says who asked. Whom to believe about that it learns from the
cluster: the ConfigMap ``kube-system/extension-apiserver-authentication``, which it reads with its
own service account.
"""

from __future__ import annotations

import argparse
import json
import queue
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

GROUP, VERSION = "orchard.example", "v1"
ROOT = f"/apis/{GROUP}/{VERSION}"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TRUST = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
VERBS = ["create", "delete", "get", "list", "patch", "watch"]
RESOURCES = [
    {"name": "fruits", "singularName": "fruit", "namespaced": True, "kind": "Fruit",
     "verbs": VERBS, "shortNames": ["fr"], "categories": ["all"]},
    {"name": "fruits/echo", "singularName": "", "namespaced": True, "kind": "Fruit",
     "verbs": ["get"]},
    {"name": "identities", "singularName": "identity", "namespaced": False, "kind": "Identity",
     "verbs": ["get"]},
]  # fmt: skip
_TEXT = {"type": "string"}
SCHEMA = {
    "type": "object", "description": "Fruit grows in an orchard.",
    "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "Fruit"}],
    "properties": {
        "apiVersion": _TEXT, "kind": _TEXT, "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": {
            "colour": {"type": "string", "description": "Colour it has when it is ripe."}}},
    },
}  # fmt: skip
KIND = {"group": GROUP, "version": VERSION, "kind": "Fruit"}
OPENAPI = {
    "openapi": "3.0.0", "info": {"title": "orchard", "version": VERSION},
    "paths": {f"{ROOT}/namespaces/{{namespace}}/fruits/{{name}}": {
        verb: {
            "responses": {"200": {"description": "OK"}}, "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": KIND,
            # kubectl leaves validation to a server that knows this parameter of a patch.
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": _TEXT}],
        } for verb in ("get", "patch")
    }},
    "components": {"schemas": {"example.orchard.v1.Fruit": SCHEMA}},
}  # fmt: skip


class Orchard:
    """The fruits, and who watches them."""

    def __init__(self) -> None:
        self.fruits: dict[tuple[str, str], dict[str, Any]] = {}
        self.watchers: list[tuple[str, queue.Queue[dict[str, Any]]]] = []
        self.revision = 1
        self.lock = threading.Lock()

    def list(self, namespace: str) -> list[dict[str, Any]]:
        return [f for (ns, _), f in sorted(self.fruits.items()) if namespace in ("", ns)]

    def put(self, namespace: str, fruit: dict[str, Any]) -> dict[str, Any] | None:
        """The fruit as it is stored; None where its name is taken."""
        with self.lock:
            key = (namespace, fruit["metadata"]["name"])
            if key in self.fruits:
                return None
            self.revision += 1
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            fruit["metadata"] |= {
                "namespace": namespace, "uid": f"fruit-{self.revision}",
                "resourceVersion": str(self.revision), "creationTimestamp": at,
            }  # fmt: skip
            self.fruits[key] = {**fruit, "apiVersion": f"{GROUP}/{VERSION}", "kind": "Fruit"}
            self._tell(namespace, "ADDED", self.fruits[key])
            return self.fruits[key]

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> dict[str, Any] | None:
        with self.lock:
            fruit = self.fruits.get((namespace, name))
            if fruit is None:
                return None
            self.revision += 1
            new = merged(fruit, patch)
            new["metadata"]["resourceVersion"] = str(self.revision)
            self.fruits[namespace, name] = new
            self._tell(namespace, "MODIFIED", new)
            return new

    def take(self, namespace: str, name: str) -> dict[str, Any] | None:
        with self.lock:
            fruit = self.fruits.pop((namespace, name), None)
            if fruit is not None:
                self.revision += 1
                self._tell(namespace, "DELETED", fruit)
            return fruit

    def _tell(self, namespace: str, kind: str, fruit: dict[str, Any]) -> None:
        for where, events in self.watchers:
            if where in ("", namespace):
                events.put({"type": kind, "object": fruit})

    def watch(self, namespace: str) -> Iterator[dict[str, Any]]:
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        with self.lock:
            for fruit in self.list(namespace):
                events.put({"type": "ADDED", "object": fruit})
            self.watchers.append((namespace, events))
        try:
            while True:
                yield events.get()
        finally:
            with self.lock:
                self.watchers.remove((namespace, events))


def merged(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    new = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), change)
    return new


def failure(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One connection. orchard and names (of front proxies that may be believed) are set below."""

    protocol_version = "HTTP/1.1"
    orchard: Orchard
    names: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{self.headers.get('X-Remote-User', '-')} {format % args}", flush=True)

    def is_believed(self) -> bool:
        """Whether the one who asks is a front proxy: its certificate was checked by TLS."""
        certificate: Any = self.connection.getpeercert() or {}  # type: ignore[attr-defined]
        subject = dict(pair for rdn in certificate.get("subject", ()) for pair in rdn)
        return bool(certificate) and (not self.names or subject.get("commonName") in self.names)

    def answer(self, body: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_request(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        documents = {
            ROOT: {"kind": "APIResourceList", "apiVersion": "v1",
                   "groupVersion": f"{GROUP}/{VERSION}", "resources": RESOURCES},
            "/openapi/v3": {"paths": {ROOT[1:]: {"serverRelativeURL": f"/openapi/v3{ROOT}"}}},
            f"/openapi/v3{ROOT}": OPENAPI, f"{ROOT}/identities/me": self.identity(),
        }  # fmt: skip
        namespace, rest = "", url.path.removeprefix(f"{ROOT}/").split("/")
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if not self.is_believed():
            self.answer(failure(401, "Unauthorized", "Unauthorized"), 401)
        elif method == "GET" and url.path in documents:
            self.answer(documents[url.path])
        elif not url.path.startswith(f"{ROOT}/") or rest[0] != "fruits":
            text = "the server could not find the requested resource"
            self.answer(failure(404, "NotFound", text), 404)
        elif len(rest) == 1:
            self.all_fruits(method, namespace, query, sent)
        else:
            self.one_fruit(method, namespace, rest[1:], sent)

    def identity(self) -> dict[str, Any]:
        extra = {k[15:].lower(): [v] for k, v in self.headers.items()
                 if k.lower().startswith("x-remote-extra-")}  # fmt: skip
        return {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": "Identity", "metadata": {"name": "me"},
            "user": self.headers.get("X-Remote-User", ""),
            "groups": self.headers.get_all("X-Remote-Group") or [], "extra": extra,
            "sawAuthorization": "Authorization" in self.headers,
        }  # fmt: skip

    def all_fruits(self, method: str, namespace: str, query: dict[str, str], sent: bytes) -> None:
        orchard = self.orchard
        if method == "POST":
            given = json.loads(sent)
            made = orchard.put(namespace, given)
            text = f'fruits.{GROUP} "{given["metadata"]["name"]}" already exists'
            code = 409 if made is None else 201
            self.answer(made or failure(code, "AlreadyExists", text), code)
        elif query.get("watch") in ("true", "1"):
            self.stream(namespace)
        else:
            self.answer({
                "apiVersion": f"{GROUP}/{VERSION}", "kind": "FruitList",
                "metadata": {"resourceVersion": str(orchard.revision)},
                "items": orchard.list(namespace),
            })  # fmt: skip

    def one_fruit(self, method: str, namespace: str, rest: list[str], sent: bytes) -> None:
        orchard, name = self.orchard, rest[0]
        if rest[1:] == ["echo"]:
            self.echo()
            return
        if method == "DELETE":
            found = orchard.take(namespace, name)
        elif method == "PATCH":
            found = orchard.patch(namespace, name, json.loads(sent))
        else:
            found = orchard.fruits.get((namespace, name))
        code = 404 if found is None else 200
        self.answer(found or failure(code, "NotFound", f'fruits.{GROUP} "{name}" not found'), code)

    def stream(self, namespace: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json;stream=watch")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self.orchard.watch(namespace):
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()

    def echo(self) -> None:
        """Everything that is sent comes back, on a connection that is no HTTP any more."""
        self.send_response_only(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", self.headers.get("Upgrade", ""))
        self.end_headers()
        self.close_connection = True
        while data := self.connection.recv(65536):
            self.connection.sendall(data)

    def do_GET(self) -> None:
        self.handle_request("GET")

    def do_POST(self) -> None:
        self.handle_request("POST")

    def do_PATCH(self) -> None:
        self.handle_request("PATCH")

    def do_DELETE(self) -> None:
        self.handle_request("DELETE")


def trust_of_cluster() -> tuple[str, list[str]]:
    """The authority of front proxies and their names, by the cluster's own word."""
    request = urllib.request.Request(f"https://kubernetes.default.svc{TRUST}")
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        data = json.load(answer)["data"]
    return data["requestheader-client-ca-file"], json.loads(data["requestheader-allowed-names"])


def make_server(
    certificate: str, key: str, trust: tuple[str, list[str]], *, host: str = "", port: int = 0
) -> ThreadingHTTPServer:
    """A server that is ready to serve. certificate, key: files; trust: as the cluster says it."""
    handler = type("Bound", (Handler,), {"orchard": Orchard(), "names": trust[1]})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=trust[0])
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    return server


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--certificate", default="/tls/tls.crt")
    options.add_argument("--key", default="/tls/tls.key")
    options.add_argument("--port", type=int, default=8443)
    given = options.parse_args()
    made = make_server(given.certificate, given.key, trust_of_cluster(), port=given.port)
    print(f"serving {ROOT} on port {given.port}", flush=True)
    made.serve_forever()

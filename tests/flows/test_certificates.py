"""Certificate requests from their creation to their end, in virtual time; and over the wire."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from sampan.api.call import User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.api.rules.certificates import CLIENT, KUBELET_CLIENT
from sampan.client.base import Client
from sampan.lib import csr, tls
from sampan.lib.clock import RealClock
from sampan.lib.loop import run_virtual
from sampan.testing.fronts import served
from sampan.testing.requests import key, pem, request
from sampan.testing.wire import WireClient
from sampan.testing.world import World, world

RESOURCE = "certificatesigningrequests.certificates.k8s.io"
RBAC = "rbac.authorization.k8s.io"


def run(scenario: Any) -> None:
    async def main() -> None:
        async with world(nodes=0) as w:
            await scenario(w)

    run_virtual(main())


def client(w: World, name: str, *groups: str) -> Client:
    return w.plane.client(User(name, (*groups, "system:authenticated"), uid="7",
                               extra={"a": ("b",)}))  # fmt: skip


async def decide(c: Client, name: str, type_: str) -> Obj:
    held = (await c.get(RESOURCE, name)).body
    status = {"conditions": [{"type": type_, "status": "True", "reason": "Test"}]}
    return await c.update(RESOURCE, {**held, "status": status}, subresource="approval")


async def until(w: World, name: str, type_: str = "") -> Obj:
    async with asyncio.timeout(60):
        while True:
            found = await w.client.get(RESOURCE, name)
            types = [c["type"] for c in found.status.get("conditions") or ()]
            if type_ in types or (not type_ and found.status.get("certificate")):
                return found
            await asyncio.sleep(0.1)


async def grant(w: World, user: str, name: str, *rules: Body) -> None:
    await w.client.create(f"clusterroles.{RBAC}", {"metadata": {"name": name}, "rules": [*rules]})
    await w.client.create(f"clusterrolebindings.{RBAC}", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}]})  # fmt: skip
    await asyncio.sleep(1)  # the authorizer follows the store


def rule(verbs: str, resources: str, *names: str) -> Body:
    made: Body = {"verbs": verbs.split(), "apiGroups": ["certificates.k8s.io"],
                  "resources": resources.split()}  # fmt: skip
    return {**made, "resourceNames": [*names]} if names else made


def test_a_request_is_approved_signed_and_cleaned() -> None:
    """The caller is written down; only who may approve for the signer does; the certificate comes;
    status and spec cannot be written by the main resource; an hour later it is gone."""

    async def scenario(w: World) -> None:
        asks = "certificatesigningrequests certificatesigningrequests/approval"
        for user in ("jane", "boss"):
            await grant(w, user, user, rule("create get update", asks))
        jane, boss = client(w, "jane", "devs"), client(w, "boss")
        made = request("j", pem("jane", ["devs"]), CLIENT, ["client auth"], username="root",
                       groups=["system:masters"], expirationSeconds=3 * 86400)  # fmt: skip
        found = await jane.create(RESOURCE, made)
        spec = found.spec
        assert (spec["username"], spec["uid"], spec["extra"]) == ("jane", "7", {"a": ["b"]})
        assert spec["groups"] == ["devs", "system:authenticated"]
        with pytest.raises(StatusError) as refused:
            await decide(jane, "j", "Approved")
        assert refused.value.code == 403
        assert refused.value.message == (
            f'{RESOURCE} "j" is forbidden: user not permitted to approve requests with signerName '
            '"kubernetes.io/kube-apiserver-client"'
        )
        await grant(w, "boss", "approver", rule("approve", "signers", "kubernetes.io/*"))
        changed = {**found.body, "spec": {**spec, "username": "root"},
                   "status": {"conditions": [{"type": "Approved", "status": "True"}]}}  # fmt: skip
        kept = await boss.update(RESOURCE, changed)
        assert kept.spec == spec and not kept.status
        approved = await decide(boss, "j", "Approved")
        (condition,) = approved.status["conditions"]
        assert condition["lastUpdateTime"] == condition["lastTransitionTime"]
        signed = await until(w, "j")
        certificate = b64decode(signed.status["certificate"])
        assert csr.expires(certificate) == pytest.approx(w.clock.now() + 3 * 86400 - 300, abs=5)
        with pytest.raises(StatusError) as refused:
            await decide(boss, "j", "Denied")
        assert refused.value.code == 422
        chosen = await w.client.list(RESOURCE, fields=f"spec.signerName={CLIENT}")
        assert [o.name for o in chosen.items] == ["j"]
        assert not (await w.client.list(RESOURCE, fields="spec.signerName=x")).items
        await asyncio.sleep(3500)
        await w.client.get(RESOURCE, "j")
        await asyncio.sleep(200)
        with pytest.raises(StatusError):
            await w.client.get(RESOURCE, "j")

    run(scenario)


def test_kubelets_are_approved_and_masters_are_not_made() -> None:
    async def scenario(w: World) -> None:
        usages = ["digital signature", "client auth"]
        node = client(w, "system:node:n9", "system:nodes")
        asked = request("n", pem("system:node:n9", ["system:nodes"]), KUBELET_CLIENT, usages)
        await node.create(RESOURCE, asked)
        await asyncio.sleep(5)
        assert not (await w.client.get(RESOURCE, "n")).status  # nobody lets nodes approve
        await w.client.create(f"clusterrolebindings.{RBAC}", {
            "metadata": {"name": "renewal"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name":
                        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"}],
        })  # fmt: skip
        await node.create(RESOURCE, {**asked, "metadata": {"name": "m"}})
        for name in ("m", "n"):  # a new one, and the one that waited
            (condition,) = (await until(w, name)).status["conditions"]
            assert condition["reason"] == "AutoApproved"
        with pytest.raises(StatusError) as refused:
            await w.client.create(
                RESOURCE, request("r", pem("x", ["system:masters"]), CLIENT, ["client auth"])
            )
        assert refused.value.message.endswith(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not "
            "allowed"
        )
        await w.client.create(RESOURCE, request("f", pem("x"), CLIENT, ["server auth"]))
        await decide(w.client, "f", "Approved")
        assert not (await until(w, "f", "Failed")).status.get("certificate")
        await w.client.create(RESOURCE, request("d", pem("x"), CLIENT, ["client auth"]))
        await decide(w.client, "d", "Denied")
        await asyncio.sleep(90_000)
        assert [o.name for o in (await w.client.list(RESOURCE)).items] == []

    run(scenario)


def test_only_who_may_sign_writes_certificates() -> None:
    async def scenario(w: World) -> None:
        await grant(w, "s", "s", rule("get update", "certificatesigningrequests/status"),
                    rule("get", "certificatesigningrequests"))  # fmt: skip
        signer = client(w, "s")
        await w.client.create(RESOURCE, request("r", pem("x"), "example.com/s", ["client auth"]))
        held = (await signer.get(RESOURCE, "r")).body
        made = {**held, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
        with pytest.raises(StatusError) as refused:
            await signer.update(RESOURCE, made, subresource="status")
        assert refused.value.message.endswith(
            'user not permitted to sign requests with signerName "example.com/s"'
        )
        await grant(w, "s", "s2", rule("sign", "signers", "example.com/s"))
        found = await signer.update(RESOURCE, made, subresource="status")
        assert found.status["conditions"][0]["lastTransitionTime"]

    run(scenario)


def test_a_signed_certificate_names_its_user_over_the_wire(tmp_path: Path) -> None:
    """What the signer made is a client certificate of a real TLS handshake."""
    now = RealClock().now()
    authority = tls.new_authority("test", now=now)
    server = tls.issue(authority, "server", now=now, hosts=["127.0.0.1", "localhost"])
    made = csr.signer(authority)(pem("jane", ["devs", "ops"]), ["client auth"], 3600, "u", now)
    (tmp_path / "ca").write_bytes(authority.certificate)
    (tmp_path / "server").write_bytes(server.certificate + server.key)
    (tmp_path / "jane").write_bytes(made + key())
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server")
    serving.load_verify_locations(tmp_path / "ca")
    serving.verify_mode = ssl.CERT_OPTIONAL
    context = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    context.load_cert_chain(tmp_path / "jane")

    async def main() -> None:
        async with served(tls=serving) as w:
            w.grant("view", {"kind": "Group", "name": "ops"}, namespace="default")
            wire = await WireClient.open(w.port, tls=context)
            answer = await wire.ask("GET", "/api/v1/namespaces/default/pods")
            assert answer.status == 200
            user = w.endpoint.calls[-1][0]
            assert (user.name, user.groups[:2]) == ("jane", ("devs", "ops"))
            await wire.close()

    asyncio.run(asyncio.wait_for(main(), 30))

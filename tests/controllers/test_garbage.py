"""Garbage collection and namespace deletion, with the real API server in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.control.engine import Engine
from sampan.controllers.garbage import GarbageCollector
from sampan.controllers.kubernetes_service import KubernetesServiceController
from sampan.controllers.namespace import NamespaceController
from sampan.controllers.rootca import RootCaController
from sampan.controllers.serviceaccount import ServiceAccountController
from sampan.lib.addressing import DEFAULT
from sampan.lib.clock import RealClock
from sampan.testing.api import api_server, client_of


def run(scenario: Callable[[ApiServer, Client, Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        stored = [t for t in api.registry if not t.virtual and t.alias is None]
        engine = Engine(lambda _name: client, clock=RealClock())
        engine.add(NamespaceController([t.resource for t in stored if t.namespaced]))
        engine.add(ServiceAccountController())
        engine.add(RootCaController("PEM"))
        engine.add(KubernetesServiceController(DEFAULT.primary, 6443))
        engine.add(
            GarbageCollector(
                [t.resource for t in stored],
                {(t.api_version, t.kind): (t.resource, t.namespaced) for t in stored},
            )
        )
        await engine.start()
        await engine.settle()
        try:
            await scenario(api, client, engine)
        finally:
            await engine.stop()
            await api.authorizer.stop()

    asyncio.run(main())


def ref(owner: Obj, *, block: bool = False) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name, "uid": owner.uid,
            "blockOwnerDeletion": block}  # fmt: skip


async def make(client: Client, name: str, *owners: Body, namespace: str = "default") -> Obj:
    meta = {"name": name, "ownerReferences": list(owners)}
    return await client.create("configmaps", {"metadata": meta}, namespace)


async def names(client: Client, namespace: str = "default") -> set[str]:
    found = (await client.list("configmaps", namespace)).items
    return {o.name for o in found if o.name != "kube-root-ca.crt"}


def test_background_deletion_cascades() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        top = await make(client, "top")
        middle = await make(client, "middle", ref(top))
        await make(client, "leaf", ref(middle))
        await make(client, "bystander")
        await client.delete("configmaps", "top", "default", propagation="Background")
        await engine.settle()
        assert await names(client) == {"bystander"}

    run(scenario)


def test_a_second_owner_keeps_a_dependent_alive() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        a, b = await make(client, "a"), await make(client, "b")
        await make(client, "both", ref(a), ref(b))
        await client.delete("configmaps", "a", "default")
        await engine.settle()
        assert await names(client) == {"b", "both"}
        held = await client.get("configmaps", "both", "default")
        assert [o["name"] for o in held.owners] == ["b"]
        await client.delete("configmaps", "b", "default")
        await engine.settle()
        assert await names(client) == set()

    run(scenario)


def test_foreground_deletion_waits_for_what_blocks_it() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        top = await make(client, "top")
        meta = {"name": "held", "finalizers": ["example.com/hold"],
                "ownerReferences": [ref(top, block=True)]}  # fmt: skip
        await client.create("configmaps", {"metadata": meta}, "default")
        await client.delete("configmaps", "top", "default", propagation="Foreground")
        await engine.settle()
        assert await names(client) == {"top", "held"}
        await client.patch("configmaps", "held", {"metadata": {"finalizers": None}}, "default")
        await engine.settle()
        assert await names(client) == set()

    run(scenario)


def test_orphans_stay_without_their_reference() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        top = await make(client, "top")
        await make(client, "child", ref(top))
        await client.delete("configmaps", "top", "default", propagation="Orphan")
        await engine.settle()
        assert await names(client) == {"child"}
        assert (await client.get("configmaps", "child", "default")).owners == []

    run(scenario)


def test_an_owner_that_never_was_and_one_of_an_unknown_kind() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        absent = {"apiVersion": "v1", "kind": "ConfigMap", "name": "no", "uid": "nowhere"}
        unknown = {"apiVersion": "x.io/v1", "kind": "Thing", "name": "t", "uid": "u"}
        await make(client, "lost", absent)
        await make(client, "kept", unknown)
        await engine.settle()
        assert await names(client) == {"kept"}

    run(scenario)


def test_a_new_object_of_the_same_name_is_no_owner() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        first = await make(client, "owner")
        await client.delete("configmaps", "owner", "default")
        await make(client, "owner")
        await make(client, "child", ref(first))
        await engine.settle()
        assert await names(client) == {"owner"}

    run(scenario)


def test_namespaces_are_emptied_then_go() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        await client.create("namespaces", {"metadata": {"name": "x"}})
        await engine.settle()
        meta = {"name": "held", "finalizers": ["example.com/hold"]}
        await client.create("configmaps", {"metadata": meta}, "x")
        await make(client, "free", namespace="x")
        for where in ("x", "default"):
            event = {"metadata": {"name": "said"}, "involvedObject": {"namespace": where}}
            await client.create("events", event, where)
        await client.delete("namespaces", "x")
        await engine.settle()
        assert await names(client, "x") == {"held"}
        namespace = await client.get("namespaces", "x")
        told = {c["type"]: (c["status"], c["message"]) for c in namespace.status["conditions"]}
        assert told["NamespaceContentRemaining"] == (
            "True", "Some resources are remaining: configmaps has 1 resource instances",
        )  # fmt: skip
        assert told["NamespaceFinalizersRemaining"] == (
            "True",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 "
            "resource instances",
        )
        await client.patch("configmaps", "held", {"metadata": {"finalizers": None}}, "x")
        await engine.settle()
        with pytest.raises(StatusError):
            await client.get("namespaces", "x")
        assert [e.namespace for e in (await client.list("events")).items] == ["default"]

    run(scenario)


def test_every_namespace_has_its_account_and_certificate_again() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        for namespace in ("default", "kube-system", "kube-public", "kube-node-lease"):
            await client.get("serviceaccounts", "default", namespace)
            held = await client.get("configmaps", "kube-root-ca.crt", namespace)
            assert held.body["data"] == {"ca.crt": "PEM"}
        await client.delete("serviceaccounts", "default", "default")
        await client.patch("configmaps", "kube-root-ca.crt", {"data": {"ca.crt": "x"}}, "default")
        await engine.settle()
        await client.get("serviceaccounts", "default", "default")
        held = await client.get("configmaps", "kube-root-ca.crt", "default")
        assert held.body["data"] == {"ca.crt": "PEM"}

    run(scenario)


def test_the_kubernetes_service_is_kept() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        service = await client.get("services", "kubernetes", "default")
        assert service.spec["clusterIP"] == "10.43.0.1"
        await client.delete("services", "kubernetes", "default")
        await client.patch("endpoints", "kubernetes", {"subsets": []}, "default")
        await engine.settle()
        assert (await client.get("services", "kubernetes", "default")).spec["clusterIP"]
        subset = (await client.get("endpoints", "kubernetes", "default")).body["subsets"][0]
        assert subset["addresses"] == [{"ip": "10.44.1.1"}]

    run(scenario)


@settings(max_examples=40, deadline=None)
@given(
    parents=st.lists(st.sets(st.integers(0, 11), max_size=3), min_size=3, max_size=12),
    doomed=st.sets(st.integers(0, 11), min_size=1, max_size=4), seed=st.integers(0, 9),
)  # fmt: skip
def test_what_has_a_live_owner_stays_and_what_has_none_goes(
    parents: list[set[int]], doomed: set[int], seed: int
) -> None:
    """Random owner graphs against the rule as written, deletions in any order and at any pace."""

    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        owners = {i: {p for p in ps if p < i} for i, ps in enumerate(parents)}
        made: dict[int, Obj] = {}
        for i, ps in owners.items():
            made[i] = await make(client, f"o{i}", *(ref(made[p]) for p in sorted(ps)))
        rng = random.Random(seed)
        gone = {i for i in doomed if i in owners}
        for i in rng.sample(sorted(gone), len(gone)):
            try:
                await client.delete("configmaps", f"o{i}", "default", propagation="Background")
            except StatusError as e:
                assert e.code == 404
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        await engine.settle()
        for i, ps in owners.items():  # ascending: owners come first
            if ps and ps <= gone:
                gone.add(i)
        assert await names(client) == {f"o{i}" for i in owners if i not in gone}

    run(scenario)


def test_a_circle_of_owners_goes() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        made = [await make(client, name) for name in ("a", "b", "c")]
        for at, one in enumerate(made):
            patch = {"metadata": {"ownerReferences": [ref(made[at - 2], block=True)]}}
            await client.patch("configmaps", one.name, patch, "default")
        await make(client, "bystander")
        await engine.settle()
        await client.delete("configmaps", "a", "default", propagation="Foreground")
        await engine.settle()
        assert await names(client) == {"bystander"}

    run(scenario)


def test_foreground_deletion_spares_dependents_of_another_owner() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        top, other = await make(client, "top"), await make(client, "other")
        await make(client, "both", ref(top, block=True), ref(other))
        await make(client, "only", ref(top, block=True))
        await engine.settle()
        await client.delete("configmaps", "top", "default", propagation="Foreground")
        await engine.settle()
        assert await names(client) == {"other", "both"}
        held = await client.get("configmaps", "both", "default")
        assert [o["name"] for o in held.owners] == ["other"]

    run(scenario)


def test_nothing_is_collected_whose_owner_a_cache_has_not_seen_yet() -> None:
    """The cache of the owner's resource is behind: what the API has counts."""

    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        await engine.caches["secrets"].stop()
        owner = await client.create("secrets", {"metadata": {"name": "owner"}}, "default")
        held = {"apiVersion": "v1", "kind": "Secret", "name": "owner", "uid": owner.uid}
        gone = {**held, "name": "gone", "uid": "gone"}
        await make(client, "one", held)
        await make(client, "two", held, gone)
        await make(client, "three", gone)
        await asyncio.sleep(0.2)
        assert {"one", "two"} <= await names(client) and "three" not in await names(client)
        engine.caches["secrets"].start()
        await asyncio.sleep(1.2)
        await engine.settle()
        two = await client.get("configmaps", "two", "default")
        assert [o["name"] for o in two.owners] == ["owner"]
        await client.delete("secrets", "owner", "default")
        await engine.settle()
        assert not {"one", "two"} & await names(client)

    run(scenario)


def test_an_owner_in_a_namespace_cannot_be_judged_for_what_has_none() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}
        meta = {"name": "x", "ownerReferences": [ref]}
        await client.create("namespaces", {"metadata": meta})
        await engine.settle()
        assert not (await client.get("namespaces", "x")).is_deleting

    run(scenario)


def test_a_namespace_does_not_end_while_a_cache_has_not_seen_all_of_it() -> None:
    async def scenario(_api: ApiServer, client: Client, engine: Engine) -> None:
        await client.create("namespaces", {"metadata": {"name": "x"}})
        await engine.settle()
        await engine.caches["secrets"].stop()
        await client.create(
            "secrets", {"metadata": {"name": "s", "finalizers": ["example.com/hold"]}}, "x"
        )
        await client.delete("namespaces", "x")
        await asyncio.sleep(0.2)
        assert (await client.get("secrets", "s", "x")).is_deleting
        assert (await client.get("namespaces", "x")).is_deleting
        await client.patch("secrets", "s", {"metadata": {"finalizers": None}}, "x")
        engine.caches["secrets"].start()
        await asyncio.sleep(1.2)
        await engine.settle()
        with pytest.raises(StatusError):
            await client.get("namespaces", "x")

    run(scenario)

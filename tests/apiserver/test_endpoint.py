"""The endpoint's promises, over a memory store: writes, reads, patches, deletion, admission."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import MERGE_PATCH, STRATEGIC_PATCH, Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Page
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.testing.api import ADMIN, api_server, client_of

Scenario = Callable[[ApiServer, Client], Awaitable[None]]


def run(scenario: Scenario) -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        await scenario(api, client)
        await api.authorizer.stop()

    asyncio.run(main())


async def refused(work: Awaitable[Any]) -> StatusError:
    with pytest.raises(StatusError) as e:
        await work
    return e.value


def config(name: str, **data: str) -> Body:
    return {"metadata": {"name": name}, "data": data}


def a_pod(name: str = "p", **spec: Any) -> Body:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}],
            **spec}}  # fmt: skip


async def bind(client: Client, name: str = "p", node: str = "n") -> None:
    target = {"target": {"kind": "Node", "name": node}}
    await client.create("pods", target, "default", name=name, subresource="binding")


# -- create, update, patch


def test_a_new_object_has_an_identity() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        made = await client.create("configmaps", config("a", k="v"), "default")
        assert made.meta["uid"] and made.meta["creationTimestamp"].endswith("Z")
        assert made.meta["namespace"] == "default" and "generation" not in made.meta
        assert made.body["kind"] == "ConfigMap" and made.body["apiVersion"] == "v1"
        again = await refused(client.create("configmaps", config("a"), "default"))
        assert (again.code, again.reason) == (409, "AlreadyExists")
        assert again.message == 'configmaps "a" already exists'

    run(scenario)


def test_generated_names() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = {"metadata": {"generateName": "x" * 60}}
        names = {(await client.create("configmaps", body, "default")).name for _ in range(20)}
        assert len(names) == 20
        assert all(len(n) == 63 and n.startswith("x" * 58) for n in names)

    run(scenario)


@pytest.mark.parametrize(
    ("body", "namespace", "code", "message"),
    [
        ({"metadata": {"name": "a", "namespace": "other"}}, "default", 400,
         "the namespace of the provided object does not match the namespace sent on the request"),
        ({"metadata": {"name": "a", "resourceVersion": "7"}}, "default", 400,
         "resourceVersion should not be set on objects to be created"),
        ({"kind": "Pod", "metadata": {"name": "a"}}, "default", 400, "does not match the resource"),
        ({"metadata": {"name": "a"}, "data": {"k": 5}}, "default", 400,
         "cannot unmarshal number into Go struct field"),
        ({"metadata": {"name": "a"}}, "missing", 404, 'namespaces "missing" not found'),
    ],
)  # fmt: skip
def test_creations_that_are_refused(body: Body, namespace: str, code: int, message: str) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        error = await refused(client.create("configmaps", body, namespace))
        assert error.code == code and message in error.message

    run(scenario)


@pytest.mark.parametrize(
    ("mode", "warned", "code"), [("", 1, 0), ("Warn", 1, 0), ("Ignore", 0, 0), ("Strict", 0, 400)]
)
def test_unknown_fields(mode: str, warned: int, code: int) -> None:
    async def scenario(api: ApiServer, _client: Client) -> None:
        call = Call(
            verb="create", resource="pods", namespace="default", body=a_pod(replica=3),
            options={"fieldValidation": mode} if mode else {},
        )  # fmt: skip
        if code:
            error = await refused(api.handle(ADMIN, call))
            assert error.code == code
            assert error.message.endswith('strict decoding error: unknown field "spec.replica"')
            return
        made = await api.handle(ADMIN, call)
        assert not isinstance(made, Page) and "replica" not in made.spec
        assert [w for w in call.warnings if "unknown" in w] == (
            ['unknown field "spec.replica"'] if warned else []
        )

    run(scenario)


def test_updates_see_conflicts_and_grow_the_generation() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = {
            "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        }  # fmt: skip
        first = await client.create("deployments.apps", body, "default")
        changed = {**first.body, "spec": {**first.spec, "replicas": 2}}
        second = await client.update("deployments.apps", changed)
        assert second.meta["generation"] == 2 and second.meta["uid"] == first.uid
        stale = await refused(client.update("deployments.apps", changed))
        assert (stale.code, stale.reason) == (409, "Conflict")
        assert stale.message == (
            'Operation cannot be fulfilled on deployments.apps "d": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
        same = await client.update("deployments.apps", second.body)
        assert same.revision == second.revision  # nothing changed: nothing written
        status = {**second.body, "status": {"replicas": 2}, "spec": {"replicas": 9}}
        third = await client.update("deployments.apps", status, subresource="status")
        assert third.spec["replicas"] == 2 and third.status == {"replicas": 2}
        assert third.meta["generation"] == 2
        fourth = await client.update("deployments.apps", {**third.body, "status": {"replicas": 7}})
        assert fourth.status == {"replicas": 2}
        scale = await client.patch(
            "deployments.apps", "d", {"spec": {"replicas": 5}}, "default", subresource="scale"
        )
        assert scale.body["kind"] == "Scale" and scale.spec == {"replicas": 5}
        assert scale.status["selector"] == "a=b"
        assert (await client.get("deployments.apps", "d", "default")).meta["generation"] == 3

    run(scenario)


def test_concurrent_patches_all_arrive() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("a"), "default")
        await asyncio.gather(
            *(client.patch("configmaps", "a", {"data": {f"k{i}": "v"}}, "default")
              for i in range(20))
        )  # fmt: skip
        assert len((await client.get("configmaps", "a", "default")).body["data"]) == 20

    run(scenario)


def test_dry_runs_write_nothing() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("held"), "default")
        before = api.store.revision
        dry = {"dryRun": "All"}
        for call in (
            Call(verb="create", resource="configmaps", namespace="default", body=config("a")),
            Call(verb="patch", resource="configmaps", namespace="default", name="held",
                 body={"data": {"k": "v"}}, content_type="application/merge-patch+json"),
            Call(verb="delete", resource="configmaps", namespace="default", name="held"),
        ):  # fmt: skip
            call.options = dry
            await api.handle(ADMIN, call)
        assert api.store.revision == before
        bad = Call(verb="create", resource="configmaps", namespace="default", body=config("a"),
                   options={"dryRun": "Some"})  # fmt: skip
        assert (await refused(api.handle(ADMIN, bad))).code == 422

    run(scenario)


# -- lists


def test_pages_are_of_one_revision() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        for i in range(7):
            await client.create("configmaps", config(f"c{i}"), "default")
        page = await client.list("configmaps", "default", limit=3)
        assert page.remaining == 4 and page.continue_
        await client.delete("configmaps", "c5", "default")
        await client.create("configmaps", config("c9"), "default")
        rest = await client.list("configmaps", "default", limit=9, continue_=page.continue_)
        assert [o.name for o in rest.items] == ["c3", "c4", "c5", "c6"]
        assert rest.revision == page.revision and rest.continue_ == ""
        bad = await refused(client.list("configmaps", "default", limit=1, continue_="xx"))
        assert bad.code == 400

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "patch", "quoted"),
    [
        (MERGE_PATCH, {"dat": {"a": "b"}}, '"{\\"dat\\":{\\"a\\":\\"b\\"}}"'),
        (STRATEGIC_PATCH, {"dat": {"a": "b"}}, '"map[dat:map[a:b]]"'),
    ],
)  # fmt: skip
def test_a_strict_patch_is_refused_by_its_own_words(kind: str, patch: Body, quoted: str) -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("a"), "default")
        call = Call(verb="patch", resource="configmaps", namespace="default", name="a", body=patch,
                    content_type=kind, options={"fieldValidation": "Strict"})  # fmt: skip
        error = await refused(api.handle(ADMIN, call))
        assert (error.code, error.reason) == (422, "Invalid")
        said = f'Invalid value: {quoted}: strict decoding error: unknown field "dat"'
        assert error.message == f' "" is invalid: patch: {said}'

    run(scenario)


def test_lists_are_gone_on_with_for_five_minutes_at_least() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        for name in "abcd":
            await client.create("configmaps", config(name), "default")
        page = await client.list("configmaps", "default", limit=2)
        api.forget_old_lists()
        await client.create("configmaps", config("e"), "default")
        api.forget_old_lists()
        await client.list("configmaps", "default", limit=2, continue_=page.continue_)
        await client.create("configmaps", config("f"), "default")
        late = await client.list("configmaps", "default", limit=2)
        api.forget_old_lists()
        again = client.list("configmaps", "default", limit=2, continue_=page.continue_)
        assert (await refused(again)).code == 410
        await client.list("configmaps", "default", limit=2, continue_=late.continue_)

    run(scenario)


def test_an_old_continue_token_expires_with_a_fresh_one() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        for i in range(4):
            await client.create("configmaps", config(f"c{i}"), "default")
        page = await client.list("configmaps", "default", limit=2)
        await client.create("configmaps", config("c9"), "default")
        await api.store.compact(api.store.revision)
        error = await refused(
            client.list("configmaps", "default", limit=2, continue_=page.continue_)
        )
        assert (error.code, error.reason) == (410, "Expired")
        rest = await client.list(
            "configmaps", "default", continue_=error.status()["metadata"]["continue"]
        )
        assert [o.name for o in rest.items] == ["c2", "c3", "c9"]

    run(scenario)


def test_selectors() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        for name, tier in (("a", "web"), ("b", "db"), ("c", "web")):
            body = {**a_pod(name), "metadata": {"name": name, "labels": {"tier": tier}}}
            await client.create("pods", body, "default")
        await bind(client, "b", "n1")

        async def names(**options: Any) -> list[str]:
            return [o.name for o in (await client.list("pods", **options)).items]

        assert await names(labels="tier=web") == ["a", "c"]
        assert await names(labels="tier in (db),tier!=web") == ["b"]
        assert await names(fields="spec.nodeName=n1") == ["b"]
        assert await names(fields="metadata.name!=b", labels="tier", limit=1) == ["a"]
        error = await refused(client.list("pods", fields="spec.color=red"))
        assert error.code == 400
        assert error.message.endswith("field label not supported: spec.color")

    run(scenario)


def test_a_revision_of_the_future_is_too_large() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        error = await refused(client.list("pods", revision=str(api.store.revision + 5)))
        assert error.code == 504 and "Too large resource version" in error.message

    run(scenario)


# -- watch


def test_watches_follow_a_selection() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        start = (await client.list("pods")).revision
        seen = client.watch("pods", since=start, labels="tier=web")

        async def label(name: str, tier: str) -> None:
            await client.patch("pods", name, {"metadata": {"labels": {"tier": tier}}}, "default")

        await client.create("pods", a_pod("a"), "default")
        for tier in ("web", "web2", "web"):
            await label("a", tier)
        await client.patch("pods", "a", {"metadata": {"annotations": {"k": "v"}}}, "default")
        await client.delete("pods", "a", "default")
        events = [await anext(seen) for _ in range(5)]
        assert [e.type for e in events] == ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]
        revisions = [e.obj.revision for e in events]
        assert revisions == sorted(set(revisions))
        assert events[1].obj.labels == {"tier": "web"}  # as it was while it was chosen

    run(scenario)


def test_initial_events_end_with_a_bookmark() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("a"), "default")
        seen = client.watch("configmaps", "default", initial=True)
        first, second = await anext(seen), await anext(seen)
        assert (first.type, first.obj.name) == ("ADDED", "a")
        assert second.type == "BOOKMARK"
        assert second.obj.meta["annotations"] == {"k8s.io/initial-events-end": "true"}

    run(scenario)


def test_a_forgotten_revision_ends_the_watch() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        start = api.store.revision
        await client.create("configmaps", config("a"), "default")
        await api.store.compact(api.store.revision)
        error = await refused(anext(client.watch("configmaps", since=start)))
        assert (error.code, error.reason) == (410, "Expired")

    run(scenario)


# -- deletion


def test_a_bound_pod_is_deleted_gracefully() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        made = await client.create("pods", a_pod(terminationGracePeriodSeconds=20), "default")
        await bind(client)
        marked = await client.delete("pods", "p", "default")
        assert marked.meta["deletionGracePeriodSeconds"] == 20
        assert marked.meta["generation"] == 2
        shorter = await client.delete("pods", "p", "default", grace=5)
        assert shorter.meta["deletionGracePeriodSeconds"] == 5
        longer = await client.delete("pods", "p", "default", grace=60)
        assert longer.meta["deletionGracePeriodSeconds"] == 5
        wrong = await refused(client.delete("pods", "p", "default", uid="other"))
        assert wrong.code == 409
        assert "Precondition failed: UID in precondition: other" in wrong.message
        await client.delete("pods", "p", "default", grace=0, uid=made.uid)
        gone = await refused(client.get("pods", "p", "default"))
        assert (gone.code, gone.message) == (404, 'pods "p" not found')

    run(scenario)


def test_an_unbound_pod_goes_at_once() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("pods", a_pod(), "default")
        await client.delete("pods", "p", "default")
        assert (await refused(client.get("pods", "p", "default"))).code == 404

    run(scenario)


def test_finalizers_hold_an_object() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}
        await client.create("configmaps", body, "default")
        marked = await client.delete("configmaps", "a", "default")
        assert "deletionTimestamp" in marked.meta
        await client.patch("configmaps", "a", {"data": {"k": "v"}}, "default")
        released = await client.patch(
            "configmaps", "a", {"metadata": {"finalizers": None}}, "default"
        )
        assert released.name == "a"
        assert (await refused(client.get("configmaps", "a", "default"))).code == 404

    run(scenario)


@pytest.mark.parametrize(
    ("policy", "finalizers"),
    [("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"]), ("Background", None)],
)
def test_propagation_policies_leave_their_finalizer(
    policy: str, finalizers: list[str] | None
) -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("configmaps", config("a"), "default")
        answer = await client.delete("configmaps", "a", "default", propagation=policy)
        if finalizers is None:
            assert answer.body["kind"] == "Status" and answer.body["status"] == "Success"
        else:
            assert answer.meta["finalizers"] == finalizers

    run(scenario)


def test_delete_collection() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        for name in ("a", "b", "c"):
            body = {"metadata": {"name": name, "labels": {"x": name}}}
            await client.create("configmaps", body, "default")
        await client.delete_collection("configmaps", "default", labels="x in (a,b)")
        assert [o.name for o in (await client.list("configmaps")).items] == ["c"]

    run(scenario)


# -- namespaces, binding, admission, authorization


def test_namespaces_terminate() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("namespaces", {"metadata": {"name": "x"}})
        await client.delete("namespaces", "x")
        held = await client.get("namespaces", "x")
        assert held.status["phase"] == "Terminating"
        error = await refused(client.create("configmaps", config("a"), "x"))
        assert error.code == 403
        assert [c.reason for c in error.causes] == ["NamespaceTerminating"]
        done = {**held.body, "spec": {"finalizers": []}}
        await client.update("namespaces", done, subresource="finalize")
        assert (await refused(client.get("namespaces", "x"))).code == 404
        kept = await refused(client.delete("namespaces", "kube-system"))
        assert kept.message == (
            'namespaces "kube-system" is forbidden: this namespace may not be deleted'
        )

    run(scenario)


def test_binding_happens_once() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        await client.create("pods", a_pod(), "default")
        await bind(client)
        pod = await client.get("pods", "p", "default")
        assert pod.spec["nodeName"] == "n"
        assert pod.status["conditions"][0]["type"] == "PodScheduled"
        error = await refused(bind(client, node="m"))
        assert error.code == 409 and 'already assigned to node "n"' in error.message

    run(scenario)


def test_pods_get_account_tolerations_and_priority() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        body = a_pod(priorityClassName="system-node-critical")
        pod = await client.create("pods", body, "default")
        (mount,) = pod.spec["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        assert mount["name"].startswith("kube-api-access-")
        assert pod.spec["serviceAccountName"] == "default"
        assert {t["key"]: t["tolerationSeconds"] for t in pod.spec["tolerations"]} == {
            "node.kubernetes.io/not-ready": 300, "node.kubernetes.io/unreachable": 300,
        }  # fmt: skip
        assert pod.spec["priority"] == 2000001000
        for spec, message in (
            ({"serviceAccountName": "nobody"}, 'serviceaccount "nobody" not found'),
            ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
        ):
            error = await refused(client.create("pods", a_pod("q", **spec), "default"))
            assert error.code == 403 and error.message.endswith(message)

    run(scenario)


def test_services_get_addresses() -> None:
    async def scenario(_api: ApiServer, client: Client) -> None:
        def service(name: str, **spec: Any) -> Body:
            return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}

        made = await asyncio.gather(
            *(client.create("services", service(f"s{i}"), "default") for i in range(5))
        )
        assert len({s.spec["clusterIP"] for s in made}) == 5
        taken = service("t", clusterIP=made[0].spec["clusterIP"])
        error = await refused(client.create("services", taken, "default"))
        assert error.code == 422 and "provided IP is already allocated" in error.message
        outside = service("t", clusterIP="10.99.0.1")
        error = await refused(client.create("services", outside, "default"))
        assert "the provided network does not match the current range" in error.message
        port = await client.create("services", service("np", type="NodePort"), "default")
        assert 30000 <= port.spec["ports"][0]["nodePort"] < 32768
        headless = await client.create("services", service("h", clusterIP="None"), "default")
        assert headless.spec["clusterIP"] == "None"
        await client.delete("services", "s0", "default")
        again = service("t", clusterIP=made[0].spec["clusterIP"])
        assert (await client.create("services", again, "default")).name == "t"

    run(scenario)


def test_strangers_are_refused_in_upstreams_words() -> None:
    async def scenario(api: ApiServer, _client: Client) -> None:
        stranger = client_of(api, User("eve", ("system:authenticated",)))
        error = await refused(stranger.list("pods", "default"))
        assert error.code == 403
        assert error.message == (
            'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the '
            'namespace "default"'
        )
        with pytest.raises(StatusError):
            stranger.watch("secrets")

    run(scenario)


def test_events_expire_after_an_hour() -> None:
    async def scenario(api: ApiServer, client: Client) -> None:
        for name, at in (("old", "2020-01-01T00:00:00Z"), ("new", "2999-01-01T00:00:00Z")):
            body = {
                "metadata": {"name": name}, "lastTimestamp": at, "reason": "R", "type": "Normal",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            }  # fmt: skip
            await client.create("events", body, "default")
        await api.expire_events()
        assert [e.name for e in (await client.list("events")).items] == ["new"]

    run(scenario)

"""RBAC: who may do what, and who may grant it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from sampan.api.call import Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Key
from sampan.apiserver import bootstrap_roles
from sampan.apiserver.authn import account_user
from sampan.apiserver.authz import (
    GROUP,
    Attributes,
    RbacAuthorizer,
    attributes_of,
    check_escalation,
    covers,
)
from sampan.apiserver.reviews import review
from sampan.store.base import Delete, Put
from sampan.store.memory import MemoryStore

JANE = User("jane", ("devs", "system:authenticated"))
ADMIN = User("root", ("system:masters",))


def authorizer() -> RbacAuthorizer:
    found = RbacAuthorizer()
    found.load(bootstrap_roles.objects())
    return found


def binding(
    role: str, subject: dict[str, str], namespace: str = "", kind: str = "ClusterRole"
) -> Any:
    return {
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": f"b-{role}", "namespace": namespace},
        "roleRef": {"kind": kind, "name": role, "apiGroup": GROUP},
        "subjects": [subject],
    }


def role(name: str, *rules: dict[str, Any], namespace: str = "", **more: Any) -> Any:
    return {
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": {"name": name, "namespace": namespace, **more.pop("meta", {})},
        "rules": list(rules),
        **more,
    }


def rule(verbs: str, resources: str, *, group: str = "", names: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "verbs": verbs.split(),
        "apiGroups": [group],
        "resources": resources.split(),
    }
    return {**found, "resourceNames": names.split()} if names else found


def may(found: RbacAuthorizer, user: User, verb: str, resource: str, **more: str) -> bool:
    return found.allowed(user, Attributes(verb=verb, resource=resource, **more)).allowed


@pytest.mark.parametrize(
    ("name", "can", "cannot"),
    [
        ("view", ["get pods", "list pods/log", "get configmaps"],
         ["get secrets", "create pods", "get roles"]),
        ("edit", ["get secrets", "create pods", "create pods/exec", "create serviceaccounts/token"],
         ["create roles", "delete namespaces"]),
        ("admin", ["create roles", "delete pods", "get secrets"],
         ["update namespaces", "get nodes"]),
        ("cluster-admin", ["delete nodes", "create anything"], []),
    ],
)  # fmt: skip
def test_the_user_facing_roles(name: str, can: list[str], cannot: list[str]) -> None:
    found = authorizer()
    found.load([binding(name, {"kind": "User", "name": "jane"}, "x")])
    groups = {"roles": GROUP}
    for wanted, texts in ((True, can), (False, cannot)):
        for text in texts:
            verb, _, resource = text.partition(" ")
            plural, _, sub = resource.partition("/")
            asked = {"subresource": sub, "group": groups.get(plural, "")}
            assert may(found, JANE, verb, plural, namespace="x", **asked) is wanted, text
            assert not may(found, JANE, verb, plural, namespace="y", **asked)
            assert not may(found, JANE, verb, plural, **asked)


def test_roles_added_later_are_aggregated() -> None:
    found = authorizer()
    found.load([binding("admin", {"kind": "Group", "name": "devs"}, "x")])
    assert not may(found, JANE, "get", "things", group="e.com", namespace="x")
    labels = {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}
    found.load([role("more", rule("get", "things", group="e.com"), meta=labels)])
    assert may(found, JANE, "get", "things", group="e.com", namespace="x")


def test_names_and_subresources() -> None:
    found = authorizer()
    found.load(
        [
            role(
                "r", rule("get update", "configmaps", names="a b"), rule("get", "*/status"),
                namespace="x",
            ),
            binding("r", {"kind": "ServiceAccount", "name": "sa"}, "x", kind="Role"),
        ]
    )  # fmt: skip
    user = account_user("x", "sa")
    assert may(found, user, "get", "configmaps", namespace="x", name="a")
    assert not may(found, user, "get", "configmaps", namespace="x", name="c")
    assert not may(found, user, "list", "configmaps", namespace="x")
    assert may(found, user, "get", "pods", namespace="x", subresource="status", name="p")
    assert not may(found, user, "get", "pods", namespace="x", name="p")
    assert not may(found, account_user("y", "sa"), "get", "configmaps", namespace="x", name="a")


def test_a_binding_to_a_role_that_is_not_there_says_so() -> None:
    found = authorizer()
    found.load([binding("nothing", {"kind": "User", "name": "jane"})])
    decision = found.allowed(JANE, Attributes(verb="get", resource="pods", namespace="x"))
    text = f'RBAC: clusterrole.{GROUP} "nothing" not found'
    assert decision == (False, text)
    with pytest.raises(StatusError) as e:
        found.require(JANE, Attributes(verb="get", resource="pods", namespace="x", name="p"))
    assert e.value.message == (
        'pods "p" is forbidden: User "jane" cannot get resource "pods" in API group "" in the '
        f'namespace "x": {text}'
    )


def test_paths() -> None:
    found = authorizer()
    anonymous = User("system:anonymous", ("system:unauthenticated",))
    for path, everybody, signed_in in (
        ("/version", True, True),
        ("/livez", True, True),
        ("/livez/ping", False, False),
        ("/apis/apps", False, True),
        ("/metrics", False, False),
    ):
        asked = Attributes(verb="get", path=path)
        assert found.allowed(anonymous, asked).allowed is everybody
        assert found.allowed(JANE, asked).allowed is signed_in
        assert found.allowed(ADMIN, asked).allowed


def test_components_have_what_they_need_and_no_more() -> None:
    found = authorizer()
    scheduler = User("system:kube-scheduler", ("system:authenticated",))
    assert may(found, scheduler, "create", "pods", subresource="binding", namespace="x")
    assert not may(found, scheduler, "get", "secrets", namespace="x")
    deployments = account_user("kube-system", "deployment-controller")
    assert may(found, deployments, "create", "replicasets", group="apps", namespace="x")
    assert may(found, deployments, "patch", "events", namespace="x")
    assert not may(found, deployments, "create", "pods", namespace="x")
    publisher = account_user("kube-system", "root-ca-cert-publisher")
    assert may(found, publisher, "list", "configmaps")
    assert not may(found, publisher, "delete", "configmaps", namespace="x")


def test_nodes_write_what_is_theirs() -> None:
    found = authorizer()
    node = User("system:node:n1", ("system:nodes", "system:authenticated"))
    assert may(found, node, "patch", "nodes", subresource="status", name="n1")
    assert not may(found, node, "patch", "nodes", subresource="status", name="n2")
    lease = {"group": "coordination.k8s.io", "namespace": "kube-node-lease"}
    assert may(found, node, "update", "leases", name="n1", **lease)
    assert not may(found, node, "update", "leases", name="n2", **lease)
    assert may(found, node, "get", "secrets", namespace="x", name="s")
    assert not may(found, node, "create", "secrets", namespace="x")
    imposter = User("n1", ("system:nodes",))
    assert not may(found, imposter, "get", "secrets", namespace="x", name="s")


def test_what_a_call_asks() -> None:
    call = Call(verb="get", resource="namespaces", name="x")
    assert attributes_of(call).namespace == "x"
    options = {"fieldSelector": "metadata.name=p"}
    call = Call(verb="watch", resource="pods", namespace="x", options=options)
    assert attributes_of(call).name == "p"
    call = Call(verb="update", resource="deployments.apps", subresource="scale", name="d")
    asked = attributes_of(call)
    assert (asked.resource, asked.group, asked.subresource) == ("deployments", "apps", "scale")


def test_covering() -> None:
    held = [rule("get list", "pods"), rule("*", "secrets", names="a")]
    assert covers(held, [rule("get", "pods")])[0]
    assert covers(held, [rule("delete", "secrets", names="a")])[0]
    ok, missing = covers(held, [rule("get delete", "pods pods/log")])
    assert not ok
    assert [(m["verbs"], m["resources"]) for m in missing] == [
        (["get"], ["pods/log"]), (["delete"], ["pods"]), (["delete"], ["pods/log"]),
    ]  # fmt: skip


def test_nobody_grants_what_they_do_not_hold() -> None:
    found = authorizer()
    found.load([binding("admin", {"kind": "User", "name": "jane"}, "x")])
    roles = f"roles.{GROUP}"
    check_escalation(
        found, JANE, resource=roles, new=role("r", rule("get", "pods"), namespace="x"), old=None
    )
    greedy = role("r", rule("get", "nodes"), namespace="x")
    with pytest.raises(StatusError) as e:
        check_escalation(found, JANE, resource=roles, new=greedy, old=None)
    assert e.value.code == 403
    assert e.value.message == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" '
        '(groups=["devs" "system:authenticated"]) is attempting to grant RBAC permissions not '
        'currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}'
    )
    check_escalation(found, JANE, resource=roles, new=greedy, old=greedy)
    check_escalation(found, ADMIN, resource=roles, new=greedy, old=None)
    bindings = f"rolebindings.{GROUP}"
    give = {"kind": "User", "name": "joe"}
    check_escalation(found, JANE, resource=bindings, new=binding("edit", give, "x"), old=None)
    with pytest.raises(StatusError):
        check_escalation(
            found, JANE, resource=bindings, new=binding("cluster-admin", give, "x"), old=None
        )
    found.load(
        [
            role("binder", rule("bind", "clusterroles", group=GROUP, names="cluster-admin")),
            binding("binder", {"kind": "User", "name": "jane"}),
        ]
    )
    check_escalation(
        found, JANE, resource=bindings, new=binding("cluster-admin", give, "x"), old=None
    )
    with pytest.raises(StatusError) as e:
        check_escalation(found, JANE, resource=bindings, new=binding("none", give, "x"), old=None)
    assert e.value.code == 404


def test_it_follows_the_store() -> None:
    async def check() -> None:
        store = MemoryStore()
        found = RbacAuthorizer()
        made = role("r", rule("get", "pods"))
        key = Key(f"clusterroles.{GROUP}", "", "r").path
        await store.commit(Put(key, orjson.dumps(made)))
        await found.start(store)
        assert not may(found, JANE, "get", "pods", namespace="x")
        bound = Key(f"rolebindings.{GROUP}", "x", "b").path
        await store.commit(
            Put(bound, orjson.dumps(binding("r", {"kind": "Group", "name": "devs"}, "x")))
        )
        while not may(found, JANE, "get", "pods", namespace="x"):
            await asyncio.sleep(0)
        await store.commit(Delete(bound))
        while may(found, JANE, "get", "pods", namespace="x"):
            await asyncio.sleep(0)
        await found.stop()
        await store.close()

    asyncio.run(asyncio.wait_for(check(), 10))


def test_reviews() -> None:
    found = authorizer()
    found.load([binding("view", {"kind": "User", "name": "jane"}, "x")])

    def ask(kind: str, spec: Any, user: User = JANE, namespace: str = "") -> Any:
        body = {"kind": kind, "spec": spec}
        return asyncio.run(review(kind, body, user=user, namespace=namespace, authorizer=found))

    pods = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"}}
    assert ask("SelfSubjectAccessReview", pods)["allowed"]
    assert not ask("SubjectAccessReview", {**pods, "user": "joe"})["allowed"]
    assert ask("SubjectAccessReview", {**pods, "user": "jane"})["reason"].startswith(
        "RBAC: allowed"
    )
    assert ask("LocalSubjectAccessReview", {**pods, "user": "jane"}, namespace="x")["allowed"]
    with pytest.raises(StatusError):
        ask("LocalSubjectAccessReview", {**pods, "user": "jane"}, namespace="y")
    with pytest.raises(StatusError):
        ask("SubjectAccessReview", pods)
    with pytest.raises(StatusError):
        ask("SelfSubjectAccessReview", {})
    version = {"nonResourceAttributes": {"verb": "get", "path": "/version"}}
    assert ask("SelfSubjectAccessReview", version)["allowed"]
    rules = ask("SelfSubjectRulesReview", {"namespace": "x"})
    assert any("pods" in r["resources"] for r in rules["resourceRules"])
    assert any("/version" in r["nonResourceURLs"] for r in rules["nonResourceRules"])
    info = ask("SelfSubjectReview", {})["userInfo"]
    assert info == {"username": "jane", "groups": ["devs", "system:authenticated"]}

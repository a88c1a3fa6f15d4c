"""FlowSchemas and priority levels: what every cluster has, defaults, every fault, columns."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.api.rules import flowcontrol as rules
from sampan.apiserver import bootstrap_flows
from sampan.control.plan import SetStatus
from sampan.controllers.flow_schemas import LEVELS, SCHEMAS, DanglingFlowSchemas
from sampan.lib.clock import rfc3339
from sampan.schema.walk import Schemas
from sampan.testing.api import api_server, client_of
from sampan.testing.plans import PlanWorld

SCHEMA, LEVEL = builtin().get(SCHEMAS), builtin().get(LEVELS)
assert SCHEMA is not None and LEVEL is not None
KINDS = {"FlowSchema": SCHEMA, "PriorityLevelConfiguration": LEVEL}
JANE: Body = {"kind": "User", "user": {"name": "jane"}}


def schema(name: str = "s", **spec: Any) -> Body:
    given = {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 7,
             "rules": [rules.everything(JANE)], **spec}  # fmt: skip
    return {"metadata": {"name": name, "namespace": ""}, "spec": given}


def level(name: str = "l", **limited: Any) -> Body:
    given = {"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": 5, **limited}
    meta = {"name": name, "namespace": ""}
    return {"metadata": meta, "spec": {"type": "Limited", "limited": given}}


def queue(**queuing: int) -> Body:
    return level(limitResponse={"type": "Queue", "queuing": queuing})


# ---- what every cluster has --------------------------------------------------------------------


def test_born_objects_are_what_their_own_rules_make_of_them() -> None:
    bodies = bootstrap_flows.objects("2026-01-01T00:00:00Z")
    for body in bodies:
        kind = KINDS[body["kind"]]
        again = copy.deepcopy(body)
        assert Schemas.load().decode(kind.definition, again) == []
        kind.rules.default(again)
        assert again["spec"] == body["spec"], body["metadata"]["name"]
        assert kind.rules.validate(again) == []
    names = [b["metadata"]["name"] for b in bodies if b["kind"] == "FlowSchema"]
    assert sorted(names) == [
        "catch-all", "endpoint-controller", "exempt", "global-default", "kube-controller-manager",
        "kube-scheduler", "kube-system-service-accounts", "probes", "service-accounts",
        "system-leader-election", "system-node-high", "system-nodes", "workload-leader-election",
    ]  # fmt: skip
    levels = {b["metadata"]["name"] for b in bodies} - set(names)
    assert levels == {"system", "node-high", "leader-election", "workload-high", "workload-low"}
    named = {b["spec"]["priorityLevelConfiguration"]["name"]
             for b in bodies if b["kind"] == "FlowSchema"}  # fmt: skip
    assert named == levels | {"exempt", "catch-all", "global-default"}


def test_a_server_has_them_and_keeps_the_mandatory_ones_as_they_are() -> None:
    async def main() -> None:
        api = await api_server()
        client = client_of(api)
        assert len((await client.list(SCHEMAS)).items) == 13
        assert len((await client.list(LEVELS)).items) == 8
        with pytest.raises(StatusError) as refused:
            await client.patch(LEVELS, "catch-all", {"spec": {"limited": {
                "nominalConcurrencyShares": 9}}})  # fmt: skip
        assert "spec of 'catch-all' must equal the fixed value" in refused.value.message
        shares = {"spec": {"exempt": {"nominalConcurrencyShares": 9}}}
        assert (await client.patch(LEVELS, "exempt", shares)).spec["exempt"] == {
            "nominalConcurrencyShares": 9, "lendablePercent": 0,
        }  # fmt: skip
        made = await client.create(SCHEMAS, schema() | {"status": {"conditions": [{"type": "x"}]}})
        assert made.status == {} and made.meta["generation"] == 1
        changed = await client.patch(SCHEMAS, "s", {"spec": {"matchingPrecedence": 8}})
        assert changed.meta["generation"] == 2
        await client.patch(
            SCHEMAS, "s", {"status": {"conditions": [{"type": "x"}]}}, subresource="status"
        )
        await client.delete(SCHEMAS, "s")
        await api.authorizer.stop()

    asyncio.run(main())


# ---- defaults and faults -----------------------------------------------------------------------


def test_defaults() -> None:
    one = schema()
    del one["spec"]["matchingPrecedence"]
    SCHEMA.rules.default(one)
    assert one["spec"]["matchingPrecedence"] == 1000
    other = queue()
    del other["spec"]["limited"]["nominalConcurrencyShares"]
    LEVEL.rules.default(other)
    assert other["spec"]["limited"] == {
        "nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {
            "type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
    }  # fmt: skip


def rule(**parts: Any) -> Body:
    resources = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}
    return {"subjects": [JANE], "resourceRules": [{**resources, **parts}]}


def urls(*found: str, verbs: tuple[str, ...] = ("get",)) -> Body:
    given = {"verbs": [*verbs], "nonResourceURLs": [*found]}
    return {"subjects": [JANE], "nonResourceRules": [given]}


R0, N0, S0 = "spec.rules[0].resourceRules[0]", "spec.rules[0].nonResourceRules[0]", "spec.rules[0]"
LABEL = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
ALONE = "if '*' is present, must not specify other"
SCHEMA_FAULTS: list[tuple[Body, str]] = [
    (schema(matchingPrecedence=-1),
     "spec.matchingPrecedence: Invalid value: -1: must be a positive value"),
    (schema(matchingPrecedence=10001),
     "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
    (schema(matchingPrecedence=1), "spec.matchingPrecedence: Invalid value: 1: only the schema "
                                   "named 'exempt' may have matchingPrecedence 1"),
    (schema(distinguisherMethod={"type": "X"}), "spec.distinguisherMethod.type: Unsupported value: "
     '{"type":"X"}: supported values: "ByNamespace", "ByUser"'),
    (schema(priorityLevelConfiguration={}),
     "spec.priorityLevelConfiguration.name: Required value: must reference a priority level"),
    (schema(rules=[{"subjects": [], "resourceRules": rule()["resourceRules"]}]),
     f"{S0}.subjects: Required value: subjects must contain at least one value"),
    (schema(rules=[{"subjects": [JANE]}]), f"{S0}: Required value: at least one of resourceRules "
                                           "and nonResourceRules has to be non-empty"),
    (schema(rules=[rules.everything({"kind": "Robot"})]), f"{S0}.subjects[0].kind: Unsupported "
     'value: "Robot": supported values: "Group", "ServiceAccount", "User"'),
    (schema(rules=[rules.everything({"kind": "User"})]), f"{S0}.subjects[0].user: Required value: "
     "user is required when subject kind is 'User'"),
    (schema(rules=[rules.everything({**JANE, "group": {"name": "g"}})]),
     f"{S0}.subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'"),
    (schema(rules=[rules.everything({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}})]),
     f"{S0}.subjects[0].serviceAccount.namespace: Required value: must specify namespace for "
     "service account"),
    (schema(rules=[rules.everything({"kind": "Group", "group": {}})]),
     f"{S0}.subjects[0].group.name: Required value"),
    (schema(rules=[rule(verbs=[])]),
     f"{R0}.verbs: Required value: verbs must contain at least one value"),
    (schema(rules=[rule(verbs=["*", "get"])]), f'{R0}.verbs: Invalid value: ["*","get"]: if \'*\' '
                                               "is present, must not specify other verbs"),
    (schema(rules=[rule(verbs=["fly"])]), f'{R0}.verbs: Unsupported value: ["fly"]: supported '
     'values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", '
     '"watch"'),
    (schema(rules=[rule(apiGroups=[])]),
     f"{R0}.apiGroups: Required value: resource rules must supply at least one api group"),
    (schema(rules=[rule(resources=["*", "a"])]),
     f'{R0}.resources: Invalid value: ["*","a"]: {ALONE} resources'),
    (schema(rules=[rule(namespaces=[])]), f"{R0}.namespaces: Required value: resource rules that "
     "are not cluster scoped must supply at least one namespace"),
    (schema(rules=[rule(namespaces=["A"])]), f'{R0}.namespaces[0]: Invalid value: "A": each '
     f"member of this list must be '*' or a DNS-1123 label; {LABEL}"),
    (schema(rules=[urls()]),
     f"{N0}.nonResourceURLs: Required value: nonResourceURLs must contain at least one value"),
    (schema(rules=[urls("*", "/a")]),
     f'{N0}.nonResourceURLs: Invalid value: ["*","/a"]: {ALONE} non-resource URLs'),
    (schema(rules=[urls("a")]),
     f'{N0}.nonResourceURLs[0]: Invalid value: "a": must start with slash'),
    (schema(rules=[urls("/", "/a*")]), f'{N0}.nonResourceURLs[1]: Invalid value: "/a*": wildcard '
                                       "can only do suffix matching"),
    (schema(rules=[urls("/a b")]), f'{N0}.nonResourceURLs[0]: Invalid value: "/a b": must not '
                                   "contain white-space"),
    (schema(rules=[urls("/a//b")]), f'{N0}.nonResourceURLs[0]: Invalid value: "/a//b": must not '
                                    "contain double slash"),
    (schema("exempt"), "spec of 'exempt' must equal the fixed value"),
    (schema() | {"status": {"conditions": [{"type": "a"}, {"type": "a"}, {}]}},
     'status.conditions[1].type: Duplicate value: "a"'),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), SCHEMA_FAULTS)
def test_faults_of_schemas(body: Body, expected: str) -> None:
    found = [str(c) for c in SCHEMA.rules.validate(body)]
    assert [f for f in found if expected in f], found


QUEUING = "spec.limited.limitResponse.queuing"
LEVEL_FAULTS: list[tuple[Body, str]] = [
    (level("exempt"), 'spec.type: Invalid value: "Limited": type must be \'Exempt\' if and only if '
                      "name is 'exempt'"),
    ({"metadata": {"name": "x"}, "spec": {"type": "Odd"}},
     'spec.type: Unsupported value: "Odd": supported values: "Exempt", "Limited"'),
    ({"metadata": {"name": "x"}, "spec": {"type": "Limited"}},
     "spec.limited: Required value: must not be empty when type is Limited"),
    ({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "limited": {}}},
     "spec.limited: Forbidden: must be nil if the type is not Limited"),
    ({"metadata": {"name": "x"}, "spec": {"type": "Limited", "exempt": {}}},
     "spec.exempt: Forbidden: must be nil if the type is Limited"),
    (level(nominalConcurrencyShares=-1),
     "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer"),
    (level(lendablePercent=101),
     "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"),
    (level(borrowingLimitPercent=-1), "spec.limited.borrowingLimitPercent: Invalid value: -1: if "
                                      "specified, must be a non-negative integer"),
    (level(limitResponse={"type": "Wait"}), "spec.limited.limitResponse.type: Unsupported value: "
     '"Wait": supported values: "Queue", "Reject"'),
    (level(limitResponse={"type": "Queue"}),
     f"{QUEUING}: Required value: must not be empty if limited.limitResponse.type is Limited"),
    (level(limitResponse={"type": "Reject", "queuing": {}}),
     f"{QUEUING}: Forbidden: must be nil if limited.limitResponse.type is not Limited"),
    (queue(queues=0, handSize=1, queueLengthLimit=-1),
     f"{QUEUING}.queueLengthLimit: Invalid value: -1: must be positive"),
    (queue(queues=-1, handSize=1, queueLengthLimit=1),
     f"{QUEUING}.queues: Invalid value: -1: must be positive"),
    (queue(queues=10_000_001, handSize=1, queueLengthLimit=1),
     f"{QUEUING}.queues: Invalid value: 10000001: must not be greater than 10000000"),
    (queue(queues=4, handSize=5, queueLengthLimit=1),
     f"{QUEUING}.handSize: Invalid value: 5: should not be greater than queues (4)"),
    (queue(queues=512, handSize=7, queueLengthLimit=1), f"{QUEUING}.handSize: Invalid value: 7: "
     "required entropy bits of deckSize 512 and handSize 7 should not be greater than 60"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), LEVEL_FAULTS)
def test_faults_of_levels(body: Body, expected: str) -> None:
    found = [str(c) for c in LEVEL.rules.validate(body)]
    assert [f for f in found if expected in f], found


def test_what_is_taken() -> None:
    assert SCHEMA.rules.validate(schema(rules=[rule(), urls("/", "/a/*", "/b")])) == []
    assert LEVEL.rules.validate(level(lendablePercent=100, borrowingLimitPercent=0)) == []
    assert LEVEL.rules.validate(queue(queues=512, handSize=6, queueLengthLimit=1)) == []


def test_columns() -> None:
    def cells(kind: Any, body: Body) -> list[Any]:
        return [c.cell(body, 0.0) for c in kind.columns if c.name != "Age"]

    held = schema(distinguisherMethod={"type": "ByUser"})
    assert cells(SCHEMA, held) == ["s", "l", 7, "ByUser", "?"]
    held["status"] = {"conditions": [{"type": "Dangling", "status": "False"}]}
    del held["spec"]["distinguisherMethod"]
    assert cells(SCHEMA, held) == ["s", "l", 7, "<none>", "False"]
    assert cells(LEVEL, level()) == ["l", "Limited", 5, "<none>", "<none>", "<none>"]
    full = queue(queues=4, handSize=2, queueLengthLimit=9)
    assert cells(LEVEL, full)[3:] == [4, 2, 9]


# ---- what a schema says of its level -----------------------------------------------------------


def test_a_schema_says_whether_its_level_is_there() -> None:
    w = PlanWorld(controller := DanglingFlowSchemas())
    w.add(SCHEMAS, schema())
    key = Key(SCHEMAS, "", "s")

    def told() -> Body:
        w.step(controller, key)
        (condition,) = w.objects[key]["status"]["conditions"]
        found: Body = condition
        return found

    text = 'This FlowSchema references the PriorityLevelConfiguration object named "l"'
    at = rfc3339(w.now)
    assert told() == {
        "type": "Dangling", "status": "True", "reason": "NotFound", "lastTransitionTime": at,
        "message": f"{text} but there is no such object",
    }  # fmt: skip
    w.add(LEVELS, level())
    w.now += 60
    assert told() == {
        "type": "Dangling", "status": "False", "reason": "Found",
        "lastTransitionTime": rfc3339(w.now), "message": f"{text} and it exists",
    }  # fmt: skip
    before = copy.deepcopy(w.objects[key])
    w.now += 60
    assert not [a for a in w.step(controller, key) if isinstance(a, SetStatus)]
    assert w.objects[key] == before
    del w.objects[key]
    assert w.step(controller, key) == []


def test_a_level_that_comes_or_goes_wakes_its_schemas() -> None:
    w = PlanWorld(controller := DanglingFlowSchemas())
    w.add(SCHEMAS, schema())
    trigger = controller.triggers[1]
    made = Obj.of(Key(LEVELS, "", "l"), level(), 1)
    assert [*trigger.keys(made, w)] == [Key(SCHEMAS, "", "s")]
    assert trigger.matters is not None and not trigger.matters(made, made)

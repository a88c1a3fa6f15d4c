"""FlowSchemas say whether the priority level they name is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.flowcontrol import dangling
from sampan.control.plan import Action, Caches, SetStatus, Trigger, own
from sampan.controllers.rollout import set_condition
from sampan.lib.clock import rfc3339

SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"


def _level_of(obj: Obj) -> Iterable[str]:
    yield (obj.spec.get("priorityLevelConfiguration") or {}).get("name", "")


class DanglingFlowSchemas:
    """Writes the condition ``Dangling``. Nothing is limited by what the two kinds say."""

    name = "api-priority-and-fairness-config-consumer"
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(SCHEMAS),
            Trigger(
                LEVELS, lambda o, c: [s.key for s in c[SCHEMAS].by("level", o.name)],
                matters=lambda _old, _new: False,
            ),
        )  # fmt: skip
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            SCHEMAS: {"level": _level_of}
        }

    def observe(self, key: Key, caches: Caches) -> tuple[Body, bool] | None:
        held = caches[SCHEMAS].get("", key.name)
        if held is None:
            return None
        return held.body, any(caches[LEVELS].get("", level) for level in _level_of(held))

    def plan(self, view: tuple[Body, bool], now: float) -> Sequence[Action]:
        body, is_there = view
        level = body["spec"]["priorityLevelConfiguration"]["name"]
        new = dangling(level, rfc3339(now), is_there=is_there)
        old = (body.get("status") or {}).get("conditions") or []
        conditions = set_condition(old, new)
        if conditions == old:
            return []
        return [SetStatus(SCHEMAS, {**body, "status": {"conditions": conditions}})]

"""Scenarios: what happens when, in a file; ``sampan simulate`` plays them in a virtual world.

See ``docs/simulate.md`` for the format. Reading one finds every mistake before anything runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.pages import obj_of
from sampan.lib import duration
from sampan.lib.loop import run_virtual
from sampan.lib.quantity import QuantityError, quantity
from sampan.node.runtime.fake import Behaviour
from sampan.sim import drain
from sampan.sim.faults import NONE, Faults
from sampan.sim.properties import Watchdog
from sampan.sim.world import World
from sampan.store.base import Change

_PATIENT = 365 * 86400.0  # whoever drains a node waits as long as it takes
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Terminating")
_TOP = ("name", "seed", "nodes", "duration", "faults", "containers", "steps", "expect")
_ACTIONS = (
    "apply", "scale", "patch", "delete", "lose-node", "return-node", "kill", "jump-clock",
    "faults", "containers", "drain", "uncordon", "load", "metrics",
)  # fmt: skip
_SERIES = ("metric", "pods", "object", "external", "value", "labels", "namespace")


class BadScenario(Exception):
    """The file is no scenario; the message names the place and the problem."""


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at one moment. what: the action's name; value: checked already."""

    at: float
    what: str
    value: Any
    power: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    resource: str
    namespace: str
    name: str
    path: str
    value: Any


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    seed: int
    nodes: tuple[Body, ...]
    duration: float
    faults: Faults
    containers: Mapping[str, Behaviour]
    steps: tuple[Step, ...]
    expect: tuple[Expectation, ...]


@dataclass(slots=True)
class Run:
    """What happened. phases: (second, pods by phase) whenever the numbers changed."""

    scenario: Scenario
    phases: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)
    events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    digest: str = ""
    deaths: int = 0


# -- reading -------------------------------------------------------------------------------------


def read(path: Path) -> Scenario:
    """Raises BadScenario, OSError."""
    try:
        given = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadScenario(f"not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(given, dict):
        raise BadScenario("a scenario is a mapping")
    _known(given, _TOP, "")
    if "duration" not in given:
        raise BadScenario("duration: required")
    steps = [
        step
        for i, raw in enumerate(_list(given, "steps"))
        for step in _steps(raw, f"steps[{i}]", path.parent)
    ]
    end = _seconds(given["duration"], "duration")
    for step in steps:
        if step.at > end:
            raise BadScenario(f"a step at {step.at:g} s comes after the end at {end:g} s")
    return Scenario(
        name=str(given.get("name") or path.stem),
        seed=_whole(given.get("seed", 0), "seed"),
        nodes=_nodes(given.get("nodes", 1)),
        duration=end,
        faults=_faults(given.get("faults") or {}, "faults"),
        containers=_behaviours(given.get("containers") or {}, "containers"),
        steps=tuple(sorted(steps, key=lambda s: s.at)),
        expect=tuple(_expectation(e, f"expect[{i}]") for i, e in enumerate(_list(given, "expect"))),
    )


def _known(given: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in given:
        if name not in names:
            place = f"{where}.{name}" if where else str(name)
            raise BadScenario(f"{place}: unknown (known here: {', '.join(names)})")


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name) or []
    if not isinstance(value, list):
        raise BadScenario(f"{name}: a list is needed")
    return value


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadScenario(f"{where}: {value!r} is not a whole number")
    return value


def _cores(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadScenario(f"{where}: {value!r} is not a number of cores")
    return float(value)


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return duration.parse(str(value))
    except ValueError:
        raise BadScenario(f"{where}: {value!r} is not a duration such as 90s or 1h30m") from None


def _faults(value: Any, where: str) -> Faults:
    if not isinstance(value, dict):
        raise BadScenario(f"{where}: a mapping is needed")
    try:
        return Faults.parse(value)
    except ValueError as e:
        raise BadScenario(str(e)) from None


def _behaviours(value: Any, where: str) -> dict[str, Behaviour]:
    if not isinstance(value, dict):
        raise BadScenario(f"{where}: a mapping of images to what they do is needed")
    found = {}
    for image, text in value.items():
        try:
            found[str(image)] = Behaviour.parse(str(text))
        except ValueError as e:
            raise BadScenario(f"{where}.{image}: {e}") from None
    return found


def _nodes(value: Any) -> tuple[Body, ...]:
    if isinstance(value, list):
        names = ("name", "labels", "taints", "capacity")
        for i, node in enumerate(value):
            if not isinstance(node, dict) or not node.get("name"):
                raise BadScenario(f"nodes[{i}].name: required")
            _known(node, names, f"nodes[{i}]")
        return tuple(value)
    return tuple({"name": f"node-{i}"} for i in range(1, _whole(value, "nodes") + 1))


def _steps(raw: Any, where: str, base: Path) -> list[Step]:
    if not isinstance(raw, dict) or "at" not in raw:
        raise BadScenario(f"{where}.at: required")
    at = _seconds(raw["at"], f"{where}.at")
    _known(raw, ("at", "power", *_ACTIONS), where)
    actions = [a for a in _ACTIONS if a in raw]
    if not actions:
        raise BadScenario(f"{where}: does nothing (known: {', '.join(_ACTIONS)})")
    power = bool(raw.get("power"))
    return [Step(at, a, _value(a, raw[a], f"{where}.{a}", base), power) for a in actions]


def _value(action: str, value: Any, where: str, base: Path) -> Any:
    match action:
        case "apply":
            return _manifests(value, where, base)
        case "scale":
            if not isinstance(value, dict):
                raise BadScenario(f"{where}: a mapping of objects to replicas is needed")
            return {_target(k, where): _whole(v, f"{where}.{k}") for k, v in value.items()}
        case "patch":
            if not isinstance(value, dict):
                raise BadScenario(f"{where}: a mapping of objects to patches is needed")
            return {_target(k, where): v for k, v in value.items()}
        case "delete":
            given = value if isinstance(value, list) else [value]
            return [_target(v, where) for v in given]
        case "load":
            if not isinstance(value, dict):
                raise BadScenario(f"{where}: a mapping of objects to cores is needed")
            return {_target(k, where): _cores(v, f"{where}.{k}") for k, v in value.items()}
        case "jump-clock":
            return _seconds(value, where)
        case "faults":
            return _faults(value, where)
        case "containers":
            return _behaviours(value, where)
        case "metrics":
            given = value if isinstance(value, list) else [value]
            return [_series(one, f"{where}[{i}]") for i, one in enumerate(given)]
    return str(value)


def _series(given: Any, where: str) -> Body:
    """One custom or external metric: of pods, of an object, or of nothing in the cluster."""
    if not isinstance(given, dict) or not given.get("metric"):
        raise BadScenario(f"{where}.metric: required")
    _known(given, _SERIES, where)
    kinds = [k for k in ("pods", "object", "external") if k in given]
    if len(kinds) != 1:
        raise BadScenario(f"{where}: one of pods, object and external is needed")
    kind, found = kinds[0], dict(given)
    if kind == "object":
        found["object"] = _target(given["object"], f"{where}.object")
    numbers = given.get("value") if kind == "object" else given[kind]
    every = numbers.values() if kind == "pods" and isinstance(numbers, dict) else [numbers]
    for number in every:
        try:
            quantity(str(number))
        except QuantityError:
            raise BadScenario(f"{where}: {number!r} is not a number") from None
    return found


def _target(text: Any, where: str) -> tuple[str, str, str]:
    """``resource[.group]/[namespace/]name``; the namespace is ``default`` where it is left out."""
    parts = str(text).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise BadScenario(f"{where}: {text!r} is not resource/name or resource/namespace/name")
    if len(parts) == 2:
        return parts[0], "default", parts[1]
    return parts[0], parts[1], parts[2]


def _manifests(value: Any, where: str, base: Path) -> list[Body]:
    """Files beside the scenario, or objects written out."""
    found: list[Body] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            found.append(item)
            continue
        try:
            found += [b for b in yaml.safe_load_all((base / str(item)).read_text()) if b]
        except (OSError, yaml.YAMLError) as e:
            raise BadScenario(f"{where}: {item}: {' '.join(str(e).split())}") from None
    for body in found:
        if not isinstance(body, dict) or not body.get("kind") or not body.get("apiVersion"):
            raise BadScenario(f"{where}: an object without kind or apiVersion")
    return found


def _expectation(raw: Any, where: str) -> Expectation:
    if not isinstance(raw, dict):
        raise BadScenario(f"{where}: a mapping is needed")
    _known(raw, ("object", "field", "is"), where)
    for name in ("object", "field", "is"):
        if name not in raw:
            raise BadScenario(f"{where}.{name}: required")
    resource, namespace, name = _target(raw["object"], f"{where}.object")
    return Expectation(resource, namespace, name, str(raw["field"]), raw["is"])


# -- playing -------------------------------------------------------------------------------------


def play(scenario: Scenario, *, seed: int | None = None) -> Run:
    """Play it in virtual time. seed: instead of the scenario's own."""
    return run_virtual(_play(scenario, scenario.seed if seed is None else seed))


async def _play(scenario: Scenario, seed: int) -> Run:
    world, run, loop = World(seed=seed), Run(scenario), asyncio.get_running_loop()
    await world.start()
    try:
        for node in scenario.nodes:
            await world.add_node(
                node["name"], labels=node.get("labels"), taints=node.get("taints") or (),
                capacity=node.get("capacity"), behaviours=scenario.containers,
            )  # fmt: skip
        began = loop.time()
        watchdog = Watchdog(world)
        world.store.observers.append(_Counts(run, lambda: loop.time() - began).see)
        world.faults = scenario.faults
        for step in scenario.steps:
            await asyncio.sleep(max(0.0, began + step.at - loop.time()))
            await _do(world, step, run, loop.time() - began)
        await asyncio.sleep(max(0.0, began + scenario.duration - loop.time()))
        world.faults = NONE
        run.violations = list(watchdog.violations)
        for expected in scenario.expect:
            await _compare(world, expected, run)
        run.digest, run.deaths = world.digest(), world.deaths
    finally:
        await world.stop()
    return run


async def _do(world: World, step: Step, run: Run, at: float) -> None:
    try:
        told = await _ACTS[step.what](world, step)
    except StatusError as e:
        told = f"{step.what} refused: {e.message}"
    run.told.append((at, told))


async def _apply(world: World, step: Step) -> str:
    names = []
    for body in step.value:
        t = world.plane.registry.of_kind(body["apiVersion"], body["kind"])
        if t is None:
            raise StatusError(404, "NotFound", f"no kind {body['kind']} in {body['apiVersion']}")
        await world.apply(t, body)
        names.append(f"{t.resource}/{body['metadata']['name']}")
    return "apply " + ", ".join(names)


async def _scale(world: World, step: Step) -> str:
    for (resource, namespace, name), replicas in step.value.items():
        await world.client.patch(resource, name, {"spec": {"replicas": replicas}}, namespace)
    return "scale " + ", ".join(f"{k[0]}/{k[2]} to {v}" for k, v in step.value.items())


async def _patch(world: World, step: Step) -> str:
    for (resource, namespace, name), patch in step.value.items():
        await world.client.patch(resource, name, patch, namespace, kind="strategic")
    return "patch " + ", ".join(f"{k[0]}/{k[2]}" for k in step.value)


async def _delete(world: World, step: Step) -> str:
    for resource, namespace, name in step.value:
        t = world.plane.registry.get(resource)
        where = namespace if t is None or t.namespaced else ""
        await world.client.delete(resource, name, where)
    return "delete " + ", ".join(f"{r}/{n}" for r, _, n in step.value)


def _node(world: World, name: str) -> str:
    if name not in world.nodes:
        raise StatusError(404, "NotFound", f'nodes "{name}" not found')
    return name


async def _lose(world: World, step: Step) -> str:
    await world.lose_node(_node(world, step.value), power=step.power)
    return f"lose {step.value}" + (" and its containers" if step.power else "")


async def _return(world: World, step: Step) -> str:
    await world.return_node(_node(world, step.value))
    return f"{step.value} returns"


async def _kill(world: World, step: Step) -> str:
    if step.value == "control-plane":
        world.kill_control()
    else:
        world.kill_agent(_node(world, step.value))
    return f"kill {step.value}"


async def _jump(world: World, step: Step) -> str:
    world.clock.offset += step.value
    return f"the clock jumps by {step.value:g} s"


async def _set_faults(world: World, step: Step) -> str:
    world.faults = step.value
    return "faults change"


async def _set_containers(world: World, step: Step) -> str:
    for node in world.nodes.values():
        node.runtime.behaviours.update(step.value)
    return "containers change: " + ", ".join(step.value)


async def _say_metrics(w: World, step: Step) -> str:
    for one in step.value:
        metric, namespace = str(one["metric"]), str(one.get("namespace", "default"))
        if "pods" in one:
            await w.metrics.pods(metric, one["pods"], namespace=namespace)
        elif "object" in one:
            resource, inside, name = one["object"]
            await w.metrics.object(metric, resource, name, one["value"], namespace=inside)
        else:
            labels = {str(k): str(v) for k, v in (one.get("labels") or {}).items()}
            value = one["external"]
            await w.metrics.external(metric, value, namespace=namespace, labels=labels)
    return "metrics change: " + ", ".join(str(one["metric"]) for one in step.value)


async def _drain(world: World, step: Step) -> str:
    """It goes on beside the steps that follow, until the node's pods are gone."""
    name = _node(world, step.value)

    async def work() -> None:
        await drain.drain(world.visitor(), name, timeout=_PATIENT)

    world.begin(f"drain {name}", work())
    return f"drain {name}"


async def _uncordon(world: World, step: Step) -> str:
    name = _node(world, step.value)
    world.end(f"drain {name}")
    await drain.cordon(world.client, name, on=False)
    return f"uncordon {name}"


async def _load(world: World, step: Step) -> str:
    for (_resource, namespace, name), cores in step.value.items():
        world.begin(f"load {namespace}/{name}", world.share(namespace, f"{name}-", cores))
    return "load " + ", ".join(f"{k[0]}/{k[2]} with {v:g} cores" for k, v in step.value.items())


_ACTS: dict[str, Callable[[World, Step], Any]] = {
    "apply": _apply, "scale": _scale, "patch": _patch, "delete": _delete, "lose-node": _lose,
    "return-node": _return, "kill": _kill, "jump-clock": _jump, "faults": _set_faults,
    "containers": _set_containers, "drain": _drain, "uncordon": _uncordon, "load": _load,
    "metrics": _say_metrics,
}  # fmt: skip


class _Counts:
    """Counts pods by phase, events by reason and writes by resource, as they happen."""

    def __init__(self, run: Run, at: Callable[[], float]) -> None:
        self._run, self._at = run, at
        self._pods: dict[str, str] = {}

    def see(self, changes: Sequence[Change]) -> None:
        for change in changes:
            resource = change.key.split("/", 1)[0]
            self._run.writes[resource] += 1
            new = obj_of(change.record) if change.record is not None else None
            if resource == "pods":
                self._pod(change.key, new)
            elif resource == "events" and new is not None and change.previous is None:
                body = new.body
                kind = body["involvedObject"]["kind"]
                self._run.events[(body["type"], kind, body["reason"])] += 1

    def _pod(self, key: str, pod: Obj | None) -> None:
        before = self._pods.get(key)
        phase = None
        if pod is not None:
            phase = "Terminating" if pod.is_deleting else str(pod.status.get("phase", "Pending"))
        if phase == before:
            return
        if phase is None:
            del self._pods[key]
        else:
            self._pods[key] = phase
        counts = dict.fromkeys(PHASES, 0) | Counter(self._pods.values())
        at, phases = self._at(), self._run.phases
        if phases and phases[-1][0] == at:
            phases.pop()
        phases.append((at, counts))


async def _compare(world: World, expected: Expectation, run: Run) -> None:
    what = f"{expected.resource}/{expected.namespace}/{expected.name}"
    t = world.plane.registry.get(expected.resource)
    namespace = expected.namespace if t is None or t.namespaced else ""
    try:
        value: Any = (await world.client.get(expected.resource, expected.name, namespace)).body
    except StatusError as e:
        run.unmet.append(f"{what}: {e.message}")
        return
    for step in expected.path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value != expected.value:
        run.unmet.append(f"{what}: {expected.path} is {value!r}, not {expected.value!r}")

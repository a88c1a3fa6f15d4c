"""Random histories of workloads under random faults; one number names and replays each.

``python -m sampan.sim.histories SEED [COUNT]`` runs them and prints each one's digest; a failure
prints the steps it took and how to run it again.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.lib.loop import run_virtual
from sampan.node.runtime.fake import LABEL
from sampan.sim.faults import NONE, Faults
from sampan.sim.properties import Violation, Watchdog, is_finished, is_live, is_ready
from sampan.sim.world import World

NAMESPACE = "work"
SETTLE_SECONDS = 3 * 3600.0
_QUIET_SECONDS, _QUIET_TURNS = 60.0, 10  # a minute without a write within ten
_VOLATILE = {"events", "leases.coordination.k8s.io", "nodes"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a history came to. digest: of every write, byte for byte."""

    seed: int
    digest: str
    revision: int
    checks: int
    deaths: int
    seconds: float  # virtual


@dataclass(slots=True)
class _Dice:
    """Draws what happens; everything from one seed."""

    rng: random.Random
    made: dict[str, list[str]] = field(default_factory=dict)  # resource -> names

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def faults(self) -> Faults:
        """Half of the worlds are calm in one respect or another."""
        pick = self.rng.choice
        return Faults(
            error=pick([0, 0, 0.02, 0.1]), lost=pick([0, 0, 0.02, 0.05]),
            conflict=pick([0, 0, 0.05, 0.2]), slow=pick([0, 0, 0.05, 0.5]),
            watch_slow=pick([0, 0, 0.2, 2.0]), watch_drop=pick([0, 0, 0.02, 0.1]),
            watch_repeat=pick([0, 0, 0.05]), kill=pick([0, 0, 0.002, 0.01]),
        )  # fmt: skip

    def behaviour(self, *, ends: bool) -> str:
        pick, rng = self.rng.choice, self.rng
        parts = []
        if ends or self.chance(0.15):
            parts.append(f"run={rng.randint(1, 40)}")
            parts.append(f"exit={pick([0, 0, 0, 1] if ends else [0, 1])}")
        if self.chance(0.2):
            parts.append(f"start_delay={rng.randint(1, 10)}")
        if self.chance(0.2):
            parts.append(f"stop_delay={rng.randint(1, 40)}")
        if self.chance(0.05):
            parts.append("start_error=no such file")
        return ",".join(parts)

    def template(self, app: str, *, ends: bool = False, restart: str = "") -> Body:
        spec: Body = {
            "containers": [{"name": "c", "image": f"v{self.rng.randint(1, 9)}"}],
            "terminationGracePeriodSeconds": self.rng.choice([0, 5, 30]),
        }
        if restart:
            spec["restartPolicy"] = restart
        behaviour = self.behaviour(ends=ends)
        annotations = {LABEL: behaviour} if behaviour else {}
        return {"metadata": {"labels": {"app": app}, "annotations": annotations}, "spec": spec}


def _bounds(dice: _Dice) -> Body:
    surge = dice.rng.choice([0, 1, 2, "25%", "50%"])
    unavailable = dice.rng.choice([1, 2, "25%"] if surge == 0 else [0, 1, "25%"])
    return {"maxSurge": surge, "maxUnavailable": unavailable}


def _replicated(dice: _Dice, name: str) -> Body:
    return {
        "replicas": dice.rng.randint(0, 5), "template": dice.template(name),
        "selector": {"matchLabels": {"app": name}},
    }  # fmt: skip


def _deployment(dice: _Dice, name: str) -> Body:
    strategy: Body = {"type": "RollingUpdate", "rollingUpdate": _bounds(dice)}
    if dice.chance(0.2):
        strategy = {"type": "Recreate"}
    return {**_replicated(dice, name), "strategy": strategy,
            "minReadySeconds": dice.rng.choice([0, 0, 5]),
            "revisionHistoryLimit": dice.rng.choice([0, 2, 10])}  # fmt: skip


def _controller(dice: _Dice, name: str) -> Body:
    return {**_replicated(dice, name), "selector": {"app": name}}


def _stateful(dice: _Dice, name: str) -> Body:
    spec = _replicated(dice, name)
    # Without any grace a deletion does not wait for the containers: identities may then overlap.
    pod = spec["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = pod["terminationGracePeriodSeconds"] or 1
    return {**spec, "serviceName": name,
            "podManagementPolicy": dice.rng.choice(["OrderedReady", "Parallel"]),
            "updateStrategy": {"type": dice.rng.choice(["RollingUpdate", "OnDelete"])}}  # fmt: skip


def _daemon(dice: _Dice, name: str) -> Body:
    rolling: Body = {"maxUnavailable": dice.rng.choice([1, "50%"])}
    if dice.chance(0.3):
        rolling = {"maxSurge": 1, "maxUnavailable": 0}
    return {"template": dice.template(name), "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}  # fmt: skip


def _job(dice: _Dice, name: str) -> Body:
    restart = dice.rng.choice(["Never", "OnFailure"])
    spec: Body = {
        "parallelism": dice.rng.randint(1, 4), "completions": dice.rng.randint(1, 6),
        "backoffLimit": dice.rng.choice([0, 2, 6]),
        "template": dice.template(name, ends=True, restart=restart),
    }  # fmt: skip
    if dice.chance(0.4):
        spec["completionMode"] = "Indexed"
    if dice.chance(0.2):
        spec["activeDeadlineSeconds"] = dice.rng.randint(20, 300)
    if dice.chance(0.2):
        spec["ttlSecondsAfterFinished"] = dice.rng.randint(0, 100)
    if dice.chance(0.3):
        spec["podReplacementPolicy"] = "Failed"
    return spec


def _cron(dice: _Dice, name: str) -> Body:
    return {
        "schedule": dice.rng.choice(["* * * * *", "*/2 * * * *", "*/5 * * * *"]),
        "concurrencyPolicy": dice.rng.choice(["Allow", "Forbid", "Replace"]),
        "successfulJobsHistoryLimit": dice.rng.randint(0, 3),
        "failedJobsHistoryLimit": dice.rng.randint(0, 2),
        "jobTemplate": {"spec": _job(dice, name)},
    }


# resource -> (prefix of names, its spec, the controller that acts on it)
KINDS: dict[str, tuple[str, Callable[[_Dice, str], Body], str]] = {
    "deployments.apps": ("web", _deployment, "deployment-controller"),
    "replicasets.apps": ("set", _replicated, "replicaset-controller"),
    "replicationcontrollers": ("rc", _controller, "replication-controller"),
    "statefulsets.apps": ("db", _stateful, "statefulset-controller"),
    "daemonsets.apps": ("agent", _daemon, "daemon-set-controller"),
    "jobs.batch": ("job", _job, "job-controller"),
    "cronjobs.batch": ("cron", _cron, "cronjob-controller"),
}
_SCALED = ("deployments.apps", "replicasets.apps", "statefulsets.apps", "replicationcontrollers")
_TEMPLATED = ("deployments.apps", "statefulsets.apps", "daemonsets.apps")


class History:
    """One random history in one world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = _Dice(random.Random(f"{seed}/history"))
        self.told: list[str] = []
        self.world = World(seed=seed)

    async def run(self) -> Outcome:
        """Raises Violation, with the steps that led to it."""
        world, dice = self.world, self.dice
        await world.start()
        try:
            for i in range(dice.rng.randint(1, 4)):
                await world.add_node(f"n{i + 1}")
            watchdog = Watchdog(world)
            await world.client.create("namespaces", {"metadata": {"name": NAMESPACE}})
            world.faults = dice.faults()
            self._tell(f"faults {world.faults}")
            for _ in range(dice.rng.randint(4, 16)):
                await asyncio.sleep(dice.rng.choice([0.0, 0.3, 2.0, 10.0, 45.0]))
                await self._step()
                watchdog.check()
            await asyncio.sleep(dice.rng.choice([0.0, 5.0, 60.0]))
            if dice.chance(0.3):
                self._tell("delete the namespace")
                await world.client.delete("namespaces", NAMESPACE)
            await self._calm()
            await self._settle(watchdog)
            watchdog.check()
            if world.failures:
                raise world.failures[0]
        except (Violation, TimeoutError) as e:
            raise Violation(self._explain(e)) from e
        finally:
            await world.stop()
        return Outcome(
            self.seed, world.digest(), world.store.revision, watchdog.checked, world.deaths,
            asyncio.get_running_loop().time(),
        )  # fmt: skip

    def _tell(self, what: str) -> None:
        self.told.append(f"{asyncio.get_running_loop().time():10.3f} {what}")

    def _explain(self, e: BaseException) -> str:
        steps = "\n".join(self.told)
        return f"{e}\nseed {self.seed}; again: {replay(self.seed)}\n{steps}"

    # -- steps -----------------------------------------------------------------------------------

    async def _step(self) -> None:
        steps: list[tuple[int, Callable[[], Any]]] = [
            (6, self._create), (4, self._scale), (4, self._change), (3, self._delete_pod),
            (2, self._delete), (2, self._lose), (2, self._return), (2, self._kill_control),
            (1, self._kill_agent), (1, self._pause), (1, self._jump), (1, self._suspend),
        ]  # fmt: skip
        weights = [w for w, _ in steps]
        (step,) = self.dice.rng.choices([s for _, s in steps], weights)
        try:
            await step()
        except StatusError as e:
            if e.code not in (404, 409):
                raise
            self._tell(f"refused: {e.message}")

    def _pick(self, *resources: str) -> tuple[str, str] | None:
        made = [(r, n) for r in resources for n in self.dice.made.get(r, ())]
        return self.dice.rng.choice(made) if made else None

    async def _create(self) -> None:
        running = self.world.plane.engine.names
        resource = self.dice.rng.choice([r for r, k in KINDS.items() if k[2] in running])
        prefix, make, _ = KINDS[resource]
        names = self.dice.made.setdefault(resource, [])
        name = f"{prefix}{len(names)}"
        body = {"metadata": {"name": name}, "spec": make(self.dice, name)}
        self._tell(f"create {resource} {body}")
        await self.world.client.create(resource, body, NAMESPACE)
        names.append(name)

    async def _patch(self, picked: tuple[str, str] | None, patch: Body) -> None:
        if picked is not None:
            resource, name = picked
            self._tell(f"patch {resource} {name} {patch}")
            await self.world.client.patch(resource, name, patch, NAMESPACE, kind="strategic")

    async def _scale(self) -> None:
        replicas = self.dice.rng.randint(0, 7)
        await self._patch(self._pick(*_SCALED), {"spec": {"replicas": replicas}})

    async def _change(self) -> None:
        container = {"name": "c", "image": f"v{self.dice.rng.randint(1, 9)}"}
        template = {"spec": {"containers": [container]}}
        if self.dice.chance(0.5):
            behaviour = self.dice.behaviour(ends=False)
            template["metadata"] = {"annotations": {LABEL: behaviour or None}}  # type: ignore
        await self._patch(self._pick(*_TEMPLATED), {"spec": {"template": template}})

    async def _pause(self) -> None:
        paused = self.dice.chance(0.5)
        await self._patch(self._pick("deployments.apps"), {"spec": {"paused": paused}})

    async def _suspend(self) -> None:
        suspended = self.dice.chance(0.5)
        picked = self._pick("jobs.batch", "cronjobs.batch")
        await self._patch(picked, {"spec": {"suspend": suspended}})

    async def _delete_pod(self) -> None:
        pods = (await self.world.client.list("pods", NAMESPACE)).items
        if pods:
            pod = self.dice.rng.choice(pods)
            self._tell(f"delete pod {pod.name}")
            await self.world.client.delete("pods", pod.name, NAMESPACE)

    async def _delete(self) -> None:
        picked = self._pick(*KINDS)
        if picked is not None:
            how = self.dice.rng.choice(["Background", "Foreground"])
            self._tell(f"delete {picked} {how}")
            await self.world.client.delete(picked[0], picked[1], NAMESPACE, propagation=how)

    async def _lose(self) -> None:
        name = self.dice.rng.choice([*self.world.nodes])
        power = self.dice.chance(0.5)
        self._tell(f"lose {name} power={power}")
        await self.world.lose_node(name, power=power)

    async def _return(self) -> None:
        for node in self.world.nodes.values():
            if node.lost:
                self._tell(f"return {node.name}")
                await self.world.return_node(node.name)
                return

    async def _kill_control(self) -> None:
        after = self.dice.rng.choice([0, 1, 2, 3, 5, 8, 13])
        self._tell(f"kill the control plane after {after} writes")
        self.world.kill_control(after_writes=after)

    async def _kill_agent(self) -> None:
        name = self.dice.rng.choice([*self.world.nodes])
        if not self.world.nodes[name].lost:
            self._tell(f"kill the agent of {name}")
            self.world.kill_agent(name)

    async def _jump(self) -> None:
        seconds = self.dice.rng.choice([-30.0, 30.0, 300.0])
        self._tell(f"the clock jumps by {seconds} s")
        self.world.clock.offset += seconds

    # -- the end ---------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Nothing goes wrong any more, and everything that only waits is let go on."""
        world, client = self.world, self.world.client
        self._tell("calm")
        world.faults = NONE
        world.calm()
        for node in world.nodes.values():
            if node.lost:
                await world.return_node(node.name)
        for resource, change in (
            ("deployments.apps", {"paused": False}), ("cronjobs.batch", {"suspend": True}),
            ("jobs.batch", {"suspend": False}),
        ):  # fmt: skip
            if world.plane.registry.get(resource) is None:
                continue
            for obj in (await client.list(resource, NAMESPACE)).items:
                if not obj.is_deleting:
                    await client.patch(resource, obj.name, {"spec": change}, NAMESPACE)

    async def _settle(self, watchdog: Watchdog) -> None:
        """Within hours everything is as it was asked to be, and then nothing is written."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_SECONDS
        pause = 1.0
        while problems := unsettled(watchdog):
            watchdog.check()
            if loop.time() > end:
                raise Violation("never settled: " + "; ".join(problems[:5]))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 120.0)
        if any(_restarts(p) for p in watchdog.objects.values()):
            return
        busy: dict[str, int] = {}
        for _ in range(_QUIET_TURNS):
            since = self.world.store.revision
            await asyncio.sleep(_QUIET_SECONDS)
            busy = {r: n for r, n in self.world.writes(since).items() if r not in _VOLATILE}
            if not busy:
                return
        raise Violation(f"still writing when settled: {busy}")


def _restarts(obj: Obj) -> bool:
    """Whether its containers end again and again by themselves."""
    return obj.key.resource == "pods" and (
        "run=" in obj.annotations.get(LABEL, "") or "start_error" in obj.annotations.get(LABEL, "")
    )


def unsettled(w: Watchdog) -> list[str]:
    """What is not yet as asked for; texts. Pods that fail by themselves are not waited for."""
    found = [f"node {n.name} is not back" for n in w.world.nodes.values() if not n.is_up]
    for obj in w.objects.values():
        resource = obj.key.resource
        if obj.is_deleting and resource in (*KINDS, "pods"):
            found.append(f"{obj.key.path} is still being deleted")
        elif resource in KINDS:
            text = _unsettled_one(w, obj)
            if text:
                found.append(f"{obj.key.path}: {text}")
        elif resource == "namespaces" and obj.is_deleting:
            found.append(f"{obj.key.path} is terminating: {obj.status.get('conditions')}")
        elif resource == "pods" and obj.controller is not None:
            if obj.controller["uid"] not in w.by_uid:
                found.append(f"{obj.key.path} is an orphan")
    return found


def _unsettled_one(w: Watchdog, obj: Obj) -> str:
    status, spec, resource = obj.status, obj.spec, obj.key.resource
    if resource == "jobs.batch":
        return "" if is_finished(obj) else "not finished"
    if resource == "cronjobs.batch":
        return ""
    if status.get("observedGeneration") != obj.meta.get("generation"):
        return "not observed"
    pods = [p for p in w.dependents(obj.uid, "pods") if is_live(p)]
    if any(_restarts(p) for p in pods) or _restarts_template(spec):
        return ""
    if resource == "daemonsets.apps":
        wanted = len(w.world.nodes)
        have = (status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
        return "" if have == (wanted, wanted) else f"{have} of {wanted}"
    wanted = int(spec.get("replicas", 1))
    names = ["replicas", "readyReplicas", "availableReplicas"]
    if resource == "deployments.apps":
        names.append("updatedReplicas")
    else:
        ready = sum(is_ready(p) for p in pods)
        if len(pods) != wanted or ready != wanted:
            return f"{ready}/{len(pods)} pods ready of {wanted}"
    counts = tuple(int(status.get(n) or 0) for n in names)
    return "" if set(counts) <= {wanted} else f"{dict(zip(names, counts, strict=True))} of {wanted}"


def _restarts_template(spec: Body) -> bool:
    meta = (spec.get("template") or {}).get("metadata") or {}
    text = (meta.get("annotations") or {}).get(LABEL) or ""
    return "run=" in text or "start_error" in text


def replay(seed: int) -> str:
    return f"python -m sampan.sim.histories {seed}"


def run(seed: int) -> Outcome:
    """One history; raises Violation."""
    return run_virtual(History(seed).run())


def main(argv: list[str]) -> int:
    first, count = int(argv[0]), int(argv[1]) if len(argv) > 1 else 1
    failed = 0
    for seed in range(first, first + count):
        try:
            print(run(seed), flush=True)
        except Violation as e:
            failed += 1
            print(f"FAILED {e}", flush=True)
    print(f"{count - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

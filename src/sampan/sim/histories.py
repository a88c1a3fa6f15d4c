"""Random histories of workloads under random faults; one number names and replays each.

``python -m sampan.sim.histories SEED [COUNT]`` runs them and prints each one's digest; a failure
prints the steps it took and how to run it again.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.lib.loop import run_virtual
from sampan.node.runtime.fake import LABEL
from sampan.sim import dice as draws
from sampan.sim import drain
from sampan.sim.dice import BESIDE, NAMESPACE, SCALED, TEMPLATED, WORKLOADS, Dice
from sampan.sim.faults import NONE
from sampan.sim.guards import CLAIMS, QUOTAS, ClaimGuard
from sampan.sim.properties import Violation, Watchdog
from sampan.sim.rest import restarts, unsettled
from sampan.sim.world import World

SUMMED = ("checks", "revision", "deaths", "evictions", "rescales", "preemptions", "seconds")
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
    evictions: int  # that were carried out
    rescales: int  # by autoscalers
    preemptions: int
    seconds: float  # virtual


class History:
    """One random history in one world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = Dice(random.Random(f"{seed}/history"))
        self.told: list[str] = []
        self.world = World(seed=seed)
        self.watchdog: Watchdog

    async def run(self) -> Outcome:
        """Raises Violation, with the steps that led to it."""
        world, dice = self.world, self.dice
        await world.start()
        try:
            await self._prepare()
            watchdog = self.watchdog
            for _ in range(dice.rng.randint(4, 16) + 2 * len(dice.themes)):
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
        except Exception as e:  # whatever it is: with the steps that led to it
            raise Violation(self._explain(e)) from e
        finally:
            await world.stop()
        return Outcome(
            self.seed,
            world.digest(),
            world.store.revision,
            watchdog.checked,
            world.deaths,
            watchdog.evictions,
            watchdog.rescales,
            watchdog.preemptions,
            asyncio.get_running_loop().time(),
        )

    async def _prepare(self) -> None:
        world, dice = self.world, self.dice
        themes = dice.draw_themes()
        self._tell(f"themes {sorted(themes)}")
        capacity = {"cpu": "4"} if "priorities" in themes else None
        for i in range(dice.rng.randint(1, 4)):
            await world.add_node(f"n{i + 1}", capacity=capacity)
        self.watchdog = Watchdog(world)
        await world.client.create("namespaces", {"metadata": {"name": NAMESPACE}})
        if "priorities" in themes:
            for name, (value, policy) in draws.PRIORITIES.items():
                body: Body = {"metadata": {"name": name}, "value": value}
                if policy:
                    body["preemptionPolicy"] = policy
                await world.client.create("priorityclasses.scheduling.k8s.io", body)
        world.faults = dice.faults()
        self._tell(f"faults {world.faults}")
        for theme in sorted(themes):
            for resource in draws.OPENINGS[theme]:
                await self._attempt(lambda r=resource: self._make(r))  # type: ignore[misc]

    def _tell(self, what: str) -> None:
        self.told.append(f"{asyncio.get_running_loop().time():10.3f} {what}")

    def _explain(self, e: BaseException) -> str:
        steps = "\n".join(self.told)
        return f"{e}\nseed {self.seed}; again: {replay(self.seed)}\n{steps}"

    # -- steps -----------------------------------------------------------------------------------

    def _steps(self) -> list[tuple[int, Callable[[], Any]]]:
        themes = self.dice.themes
        steps: list[tuple[int, Callable[[], Any]]] = [
            (6, self._create), (4, self._scale), (4, self._change), (3, self._delete_pod),
            (2, self._delete), (2, self._lose), (2, self._return), (2, self._kill_control),
            (2, self._kill_controller), (1, self._kill_agent), (1, self._pause), (1, self._jump),
            (1, self._suspend), (1, self._images), (2, self._own), (1, self._disown),
        ]  # fmt: skip
        if themes:
            steps += [(3 + len(themes), self._create_beside), (2, self._delete_beside)]
        if "budgets" in themes:
            steps += [(4, self._drain), (2, self._uncordon), (2, self._evict)]
        if "scaling" in themes:
            steps.append((5, self._load))
        if "quotas" in themes:
            steps.append((2, self._limit))
        return steps

    async def _step(self) -> None:
        steps = self._steps()
        (step,) = self.dice.rng.choices([s for _, s in steps], [w for w, _ in steps])
        await self._attempt(step)

    async def _attempt(self, step: Callable[[], Any]) -> None:
        try:
            await step()
        except StatusError as e:
            # 500: of an eviction, where a pod has two budgets.
            if e.code not in (403, 404, 409, 429, 500):
                raise
            self._tell(f"refused: {e.message}")

    def _pick(self, *resources: str) -> tuple[str, str] | None:
        made = [(r, n) for r in resources for n in self.dice.made.get(r, ())]
        return self.dice.rng.choice(made) if made else None

    async def _create(self) -> None:
        await self._make(self.dice.rng.choice([*WORKLOADS]))

    async def _create_beside(self) -> None:
        known = [r for t in sorted(self.dice.themes) for r in BESIDE[t]]
        if known:
            await self._make(self.dice.rng.choice(known))

    async def _make(self, resource: str) -> None:
        prefix, make = draws.KINDS[resource]
        names = self.dice.made.setdefault(resource, [])
        name = f"{prefix}{len(names)}"
        body: Body = {"metadata": {"name": name}, "spec": make(self.dice, name)}
        self._tell(f"create {resource} {body}")
        await self.world.client.create(resource, body, NAMESPACE)
        names.append(name)
        if resource == "services" and "selector" not in body["spec"]:
            await self._write_endpoints(name)

    async def _write_endpoints(self, name: str) -> None:
        """Of a service without a selector: its slices mirror them."""
        count = self.dice.rng.randint(0, 3)
        body: Body = {"metadata": {"name": name}}
        if count:
            addresses = [{"ip": f"192.0.2.{n + 1}"} for n in range(count)]
            body["subsets"] = [{"addresses": addresses, "ports": [{"port": 80}]}]
        self._tell(f"create endpoints {body}")
        await self.world.client.create("endpoints", body, NAMESPACE)

    async def _patch(self, picked: tuple[str, str] | None, patch: Body) -> None:
        if picked is not None:
            resource, name = picked
            self._tell(f"patch {resource} {name} {patch}")
            await self.world.client.patch(resource, name, patch, NAMESPACE, kind="strategic")

    async def _scale(self) -> None:
        replicas = self.dice.rng.randint(0, 7)
        await self._patch(self._pick(*SCALED), {"spec": {"replicas": replicas}})

    async def _change(self) -> None:
        container = {"name": "c", "image": f"v{self.dice.rng.randint(1, 9)}"}
        template = {"spec": {"containers": [container]}}
        if self.dice.chance(0.5):
            behaviour = self.dice.behaviour(ends=False)
            template["metadata"] = {"annotations": {LABEL: behaviour or None}}  # type: ignore
        await self._patch(self._pick(*TEMPLATED), {"spec": {"template": template}})

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
        picked = self._pick(*WORKLOADS)
        if picked is not None:
            how = self.dice.rng.choice(["Background", "Foreground"])
            self._tell(f"delete {picked} {how}")
            await self.world.client.delete(picked[0], picked[1], NAMESPACE, propagation=how)

    async def _own(self) -> None:
        """A user's own owner, and what it owns, one right after the other."""
        rng, client = self.dice.rng, self.world.client
        kinds = rng.sample([*draws.OWNERS], 2)
        names = self.dice.made.setdefault(kinds[0], [])
        name = f"owner{len(names)}"
        self._tell(f"create {kinds[0]} {name} and {kinds[1]} of it")
        owner = await client.create(kinds[0], {"metadata": {"name": name}}, NAMESPACE)
        names.append(name)
        ref = {"apiVersion": "v1", "kind": draws.OWNERS[kinds[0]], "name": name, "uid": owner.uid,
               "blockOwnerDeletion": self.dice.chance(0.5)}  # fmt: skip
        meta = {"name": f"{name}-{rng.randint(0, 99)}", "ownerReferences": [ref]}
        await client.create(kinds[1], {"metadata": meta}, NAMESPACE)

    async def _disown(self) -> None:
        picked = self._pick(*draws.OWNERS)
        if picked is not None:
            how = self.dice.rng.choice(["Background", "Foreground", "Orphan"])
            self._tell(f"delete {picked} {how}")
            await self.world.client.delete(picked[0], picked[1], NAMESPACE, propagation=how)

    async def _delete_beside(self) -> None:
        picked = self._pick(*(r for t in sorted(self.dice.themes) for r in BESIDE[t]))
        if picked is not None:
            self._tell(f"delete {picked}")
            if picked[0] == CLAIMS:
                held = await self.world.client.get(*picked, NAMESPACE)
                self.watchdog.guard(ClaimGuard).asked.add(held.uid)
            await self.world.client.delete(picked[0], picked[1], NAMESPACE)

    # -- of themes -------------------------------------------------------------------------------

    async def _drain(self) -> None:
        name = self.dice.rng.choice([*self.world.nodes])
        timeout = self.dice.rng.choice([30.0, 120.0, 600.0])
        self._tell(f"drain {name} for {timeout} s")
        self.world.begin(f"drain {name}", self._drained(name, timeout))

    async def _drained(self, name: str, timeout: float) -> None:
        done = await drain.drain(self.world.visitor(), name, timeout=timeout)
        self._tell(f"{name} is drained" if done else f"{name} could not be drained")

    async def _uncordon(self) -> None:
        for name in self.world.nodes:
            node = await self.world.client.get("nodes", name)
            if node.spec.get("unschedulable"):
                self._tell(f"uncordon {name}")
                await drain.cordon(self.world.client, name, on=False)
                return

    async def _evict(self) -> None:
        pods = (await self.world.client.list("pods", NAMESPACE)).items
        if pods:
            pod = self.dice.rng.choice(pods)
            self._tell(f"evict {pod.name}")
            await drain.evict(self.world.client, pod)

    async def _load(self) -> None:
        names = self.dice.made.get("deployments.apps")
        if names:
            name, cores = self.dice.rng.choice(names), self.dice.rng.choice([0.0, 0.05, 0.2, 1.0])
            self._tell(f"pods of {name} use {cores} cores")
            for node in self.world.nodes.values():
                node.runtime.load(NAMESPACE, f"{name}-", cores)

    async def _limit(self) -> None:
        picked = self._pick(QUOTAS)
        if picked is not None:
            spec = draws.quota(self.dice, picked[1])
            self._tell(f"limit {picked[1]} to {spec}")
            patch = [{"op": "replace", "path": "/spec", "value": spec}]
            await self.world.client.patch(QUOTAS, picked[1], patch, NAMESPACE, kind="json")

    async def _images(self) -> None:
        """Some images cannot be had; or all can again."""
        rng = self.dice.rng
        missing = set(rng.sample(draws.IMAGES, rng.choice([0, 3, 6])))
        self._tell(f"images that cannot be pulled: {sorted(missing)}")
        for node in self.world.nodes.values():
            node.runtime.missing = missing

    # -- what goes wrong -------------------------------------------------------------------------

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

    async def _kill_controller(self) -> None:
        after = self.dice.rng.choice([0, 1, 2, 3, 5])
        name = self.dice.rng.choice(sorted(set(self.world.plane.engine.names)))
        self._tell(f"kill {name} after {after} writes")
        self.world.kill_controller(name, after_writes=after)

    async def _kill_agent(self) -> None:
        name = self.dice.rng.choice([*self.world.nodes])
        if not self.world.nodes[name].lost:
            self._tell(f"kill the agent of {name}")
            self.world.kill_agent(name)

    async def _jump(self) -> None:
        seconds = self.dice.rng.choice([-30.0, 30.0, 300.0, 3600.0])
        self._tell(f"the clock jumps by {seconds} s")
        self.world.clock.offset += seconds

    # -- the end ---------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Nothing goes wrong any more, and everything that only waits is let go on."""
        world, client = self.world, self.world.client
        self._tell("calm")
        world.faults = NONE
        world.calm()
        world.end()
        for node in world.nodes.values():
            node.runtime.missing = set()
            if node.lost:
                await world.return_node(node.name)
            await drain.cordon(client, node.name, on=False)
        for resource, change in (
            ("deployments.apps", {"paused": False}), ("cronjobs.batch", {"suspend": True}),
            ("jobs.batch", {"suspend": False}),
        ):  # fmt: skip
            for obj in (await client.list(resource, NAMESPACE)).items:
                if not obj.is_deleting:
                    await client.patch(resource, obj.name, {"spec": change}, NAMESPACE)
        for obj in (await client.list(QUOTAS, NAMESPACE)).items:
            # Where cpu is counted every pod has to say how much it wants: not all do.
            names = [n for n in obj.spec["hard"] if n != "requests.cpu"] or ["pods"]
            wide = {"op": "replace", "path": "/spec/hard", "value": dict.fromkeys(names, "1000")}
            await client.patch(QUOTAS, obj.name, [wide], NAMESPACE, kind="json")
        await client.delete_collection("limitranges", NAMESPACE)

    async def _settle(self, watchdog: Watchdog) -> None:
        """Within hours everything is as it was asked to be, and then nothing is written."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_SECONDS
        await self._wait(watchdog, end)
        if any(restarts(p) for p in watchdog.of("pods")):
            return
        busy: dict[str, int] = {}
        for _ in range(_QUIET_TURNS):
            since = self.world.store.revision
            await asyncio.sleep(_QUIET_SECONDS)
            busy = {r: n for r, n in self.world.writes(since).items() if r not in _VOLATILE}
            if not busy:
                await self._wait(watchdog, end)  # what came late has left nothing undone
                return
        raise Violation(f"still writing when settled: {busy}")

    async def _wait(self, watchdog: Watchdog, end: float) -> None:
        pause, loop = 1.0, asyncio.get_running_loop()
        while problems := unsettled(watchdog):
            watchdog.check()
            if loop.time() > end:
                raise Violation("never settled: " + "; ".join(problems[:5]))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 120.0)


def replay(seed: int) -> str:
    return f"python -m sampan.sim.histories {seed}"


def run(seed: int) -> Outcome:
    """One history; raises Violation."""
    return run_virtual(History(seed).run())


def main(argv: list[str]) -> int:
    first, count = int(argv[0]), int(argv[1]) if len(argv) > 1 else 1
    failed = 0
    sums: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            done = run(seed)
        except Violation as e:
            failed += 1
            print(f"FAILED {e}", flush=True)
        else:
            print(done, flush=True)
            sums.update({n: getattr(done, n) for n in SUMMED})
    print(f"{count - failed} passed, {failed} failed; " + ", ".join(
        f"{round(n)} {name}" for name, n in sums.items()))  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

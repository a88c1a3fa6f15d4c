"""A cluster for tests: in this process, with fake containers, on a clock the test moves on.

It lives in a thread of its own, so that a test may be plain synchronous code, use ``kubectl``, or
run an operator against its kubeconfig. Time flows as elsewhere; ``clock.advance(hours=1)`` skips an
hour in which everything that was to happen happens, in its order.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml

from sampan.api.obj import Body, Obj
from sampan.apiserver.authn import Authenticator
from sampan.apiserver.discovery import Documents, version_info
from sampan.apiserver.front import Front
from sampan.app import pki
from sampan.client import kubeconfig
from sampan.client.base import Client
from sampan.lib.clock import Clock, RealClock
from sampan.lib.loop import SteppedLoop, VirtualClock
from sampan.node.runtime.fake import Behaviour
from sampan.sim.faults import NONE, Faults
from sampan.sim.metrics import Metrics, Pods, Value
from sampan.sim.world import Beginning, World
from sampan.testing.e2e import kubectl_path

T = TypeVar("T")
_ADDRESS = "127.0.0.1"
_PROXY = pki.new_proxy(now=RealClock().now())
_SETTLE_SECONDS, _QUIET_TURNS = 10.0, 3


class ClusterClock:
    """The cluster's time. It starts at the same moment for every test (a virtual clock), or is the
    machine's own (a real one, which cannot be moved)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._cluster.run(self._now())

    async def _now(self) -> float:
        return self._cluster.world.clock.now()

    def advance(
        self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> None:
        """Skip so much time; returns when all that was to happen in it has happened and the
        cluster has come to rest. What runs outside of the cluster is not waited for."""
        if not self._cluster.virtual:
            raise RuntimeError("the clock is the machine's own: ask for a virtual one to move it")
        total = seconds + 60 * minutes + 3600 * hours + 86400 * days
        self._cluster.run(self._cluster.loop.advance(total))
        self._cluster.settle()


def _own(obj: Obj) -> Body:
    """A body that may be changed: those in the cluster are shared."""
    found: Body = orjson.loads(obj.raw)
    return found


class SyncClient:
    """The administrator's client, for synchronous tests. Objects are plain dictionaries, the test's
    own; failures are ``StatusError``. resource: ``plural`` or ``plural.group``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _call(self, make: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        return self._cluster.run(make(self._cluster.world.client))

    def get(self, resource: str, name: str, namespace: str = "") -> Body:
        return _own(self._call(lambda c: c.get(resource, name, namespace)))

    def list(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Body]:
        page = self._call(lambda c: c.list(resource, namespace, labels=labels, fields=fields))
        return [_own(o) for o in page.items]

    def create(self, resource: str, body: Body, namespace: str = "") -> Body:
        return _own(self._call(lambda c: c.create(resource, body, namespace)))

    def update(self, resource: str, body: Body, *, subresource: str = "") -> Body:
        return _own(self._call(lambda c: c.update(resource, body, subresource=subresource)))

    def patch(
        self, resource: str, name: str, patch: Any, namespace: str = "", *, kind: str = "merge",
        subresource: str = "",
    ) -> Body:  # fmt: skip
        """kind: json, merge or strategic."""
        done = self._call(
            lambda c: c.patch(resource, name, patch, namespace, kind=kind, subresource=subresource)
        )
        return _own(done)

    def delete(
        self, resource: str, name: str, namespace: str = "", *, propagation: str = ""
    ) -> None:
        self._call(lambda c: c.delete(resource, name, namespace, propagation=propagation))


class ClusterMetrics:
    """Custom and external metrics, as the test says them, for HorizontalPodAutoscalers. The
    first call registers the metrics APIs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _do(self, what: Callable[[Metrics], Coroutine[Any, Any, None]]) -> None:
        self._cluster.run(what(self._cluster.world.metrics))

    def pods(self, metric: str, values: Pods, *, namespace: str = "default") -> None:
        """A metric of pods: by their names, or one value for each there is."""
        self._do(lambda m: m.pods(metric, values, namespace=namespace))

    def object(
        self, metric: str, resource: str, name: str, value: Value, *, namespace: str = "default"
    ) -> None:
        """A metric of one object; resource: ``plural`` or ``plural.group``."""
        self._do(lambda m: m.object(metric, resource, name, value, namespace=namespace))

    def external(
        self, metric: str, value: Value, *, namespace: str = "default",
        labels: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """A metric of nothing in the cluster; one value for each set of labels."""
        self._do(lambda m: m.external(metric, value, namespace=namespace, labels=labels))

    def forget(self, metric: str, *, namespace: str = "default") -> None:
        """As if it had never been there."""
        self._do(lambda m: m.forget(metric, namespace=namespace))


class Cluster:
    """A running cluster; ``with Cluster() as cluster: ...``, or the pytest fixture ``cluster``.

    nodes: how many. virtual: whether its clock can be moved. seed: of every name and uid.
    """

    def __init__(self, *, nodes: int = 1, virtual: bool = True, seed: int = 0) -> None:
        self.virtual = virtual
        self.loop = SteppedLoop()
        self.clock = ClusterClock(self)
        self.client = SyncClient(self)
        self.metrics = ClusterMetrics(self)
        self.world: World
        self._nodes, self._seed = nodes, seed
        self._behaviours: dict[str, Behaviour] = {}
        self._spare: asyncio.Task[World] | None = None
        self._beginning: Beginning | None = None
        self._began = 0.0
        self._ending: set[asyncio.Task[None]] = set()
        self._documents: Documents | None = None
        self._front: Front | None = None
        self._port = 0
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._tls: tuple[ssl.SSLContext, pki.Pki] | None = None
        self._thread = threading.Thread(target=self._serve, name="sampan cluster", daemon=True)

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Cluster:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        if self._files is not None:
            self._files.cleanup()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _start(self) -> None:
        """A control plane stands ready for the next start: only the nodes are waited for."""
        if self._spare is None:
            self._spare = self._prepare_spare()
        self.world = await self._spare
        self.world.clock.offset += self._began - self.world.clock.now() if self.virtual else 0.0
        self._spare = self._prepare_spare()
        self._behaviours = {}
        for i in range(1, self._nodes + 1):
            await self.world.add_node(f"node-{i}", behaviours=self._behaviours)

    def _prepare_spare(self) -> asyncio.Task[World]:
        async def prepare() -> World:
            if self._beginning is None:
                self._beginning = await self._begin()
            made = World(
                seed=self._seed, clock=self._time(), beginning=self._beginning, proxy=_PROXY
            )
            self._began = made.clock.now()
            await made.start()
            return made

        return self.loop.create_task(prepare())

    def _time(self) -> Clock:
        return VirtualClock(began=self.loop.time()) if self.virtual else RealClock()

    async def _begin(self) -> Beginning:
        """What every cluster of the seed has at first, written once."""
        first = World(seed=self._seed, clock=self._time(), proxy=_PROXY)
        await first.start()
        await first.plane.engine.settle()
        found = first.beginning()
        self._end(first)
        return found

    def _end(self, world: World) -> None:
        """Stop *world* beside what comes next."""
        ending = self.loop.create_task(world.stop())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _stop(self) -> None:
        await self._close_front()
        assert self._spare is not None
        await (await self._spare).stop()
        await asyncio.gather(self.world.stop(), *self._ending)

    async def _close_front(self) -> None:
        if self._front is not None:
            await self._front.close(grace=0.0)
            self._front = None

    def reset(self) -> None:
        """Everything is as it was at first: objects, nodes, time. The kubeconfig goes on."""
        self.run(self._reset())

    async def _reset(self) -> None:
        served = self._front is not None
        await self._close_front()
        self._end(self.world)
        await self._start()
        if served:
            await self._listen()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* inside of the cluster; its result."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result()

    # -- what a test does ------------------------------------------------------------------------

    def apply(self, manifest: str | Path) -> list[Body]:
        """Create or change what *manifest* (YAML text, or a file) describes. What a test's own
        code would do with ``kubectl apply``, without the process."""
        text = manifest.read_text() if isinstance(manifest, Path) else manifest
        return [self._apply(body) for body in yaml.safe_load_all(text) if body]

    def _apply(self, body: Body) -> Body:
        t = self.world.plane.registry.of_kind(body["apiVersion"], body["kind"])
        if t is None:
            raise ValueError(f"no kind {body['kind']} in {body['apiVersion']}")
        return _own(self.run(self.world.apply(t, body)))

    def behave(self, image: str, text: str = "", **fields: Any) -> None:
        """What containers of *image* do from now on: ``behave("job:1", "run=5,exit=1")`` or
        ``behave("job:1", run=5, exit=1)``; see ``sampan.node.runtime.fake.Behaviour``."""
        behaviour = replace(Behaviour.parse(text), **fields)

        async def note() -> None:
            self._behaviours[image] = behaviour
            for node in self.world.nodes.values():
                node.runtime.behaviours[image] = behaviour

        self.run(note())

    def world_do(self, what: Callable[[World], T]) -> T:
        """Call *what* with the cluster's ``sampan.sim.world.World``, in the cluster's own thread:
        for killing the control plane, losing a node, a clock that jumps."""

        async def call() -> T:
            return what(self.world)

        return self.run(call())

    @contextmanager
    def faults(self, **chances: float) -> Iterator[None]:
        """Within this block things go wrong, as ``sampan.sim.faults.Faults`` names them."""
        self.world.faults = Faults(**chances)
        try:
            yield
        finally:
            self.world.faults = NONE

    def settle(self) -> None:
        """Returns when the cluster has nothing to do at this moment."""
        self.run(self._settle())

    async def _settle(self) -> None:
        """Agents put unsettled statuses off by up to half a second: nothing may be written for
        longer than that, in the cluster's own time."""
        world = self.world
        async with asyncio.timeout(_SETTLE_SECONDS):
            quiet = 0
            while quiet < _QUIET_TURNS:
                before = world.store.revision
                for _ in range(20):
                    await asyncio.sleep(0)
                if self.virtual:
                    await self.loop.advance(0.2)
                else:
                    await asyncio.sleep(0.2)
                is_idle = world.plane.engine.is_idle and world.store.revision == before
                quiet = quiet + 1 if is_idle else 0

    def until(self, what: Callable[[], T], *, timeout: float = 10.0) -> T:
        """Wait in real time until *what* is true; its value. For operators beside the cluster."""
        deadline = time.monotonic() + timeout
        while not (value := what()):
            if time.monotonic() > deadline:
                raise AssertionError("did not become true in time")
            time.sleep(0.01)
        return value

    # -- clients of its own ----------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and for clients in any language; the API is served from the first use on."""
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="sampan-cluster-")
        path = Path(self._files.name) / "kubeconfig"
        if self._front is None:
            self._prepare(Path(self._files.name))
            self.run(self._listen())
            assert self._tls is not None
            signed = self._tls[1]
            kubeconfig.write(path, kubeconfig.make(
                "sampan", f"https://{_ADDRESS}:{self._port}", ca=signed.ca.certificate,
                certificate=signed.admin.certificate, key=signed.admin.key,
            ))  # fmt: skip
        return path

    def _prepare(self, files: Path) -> None:
        if self._tls is not None:
            return
        signed = pki.ensure(files / "pki", [_ADDRESS, "localhost"], now=RealClock().now())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files / "pki/apiserver.crt", files / "pki/apiserver.key")
        context.load_verify_locations(files / "pki/ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        self._tls = context, signed

    async def _listen(self) -> None:
        assert self._tls is not None
        plane = self.world.plane
        agents = self.world.agents
        if self._documents is None:
            self._documents = Documents(plane.registry, plane.schemas, version=version_info())
        self._documents.follow(plane.aggregation)
        self._front = Front(
            plane.api, clock=self.world.clock, authorizer=plane.authorizer,
            documents=self._documents, aggregation=plane.aggregation,
            authenticator=Authenticator(tokens=plane.tokens, authorizer=plane.authorizer),
            streams=lambda node: agents[node].streams if node in agents else None,
        )  # fmt: skip
        self._port = await self._front.listen(_ADDRESS, self._port, self._tls[0])

    def kubectl(self, *args: str, stdin: str = "") -> str:
        """What kubectl prints; a failure is an AssertionError with what it said."""
        command = [kubectl_path(), "--kubeconfig", str(self.kubeconfig), *args]
        env: Mapping[str, str] = {"HOME": str(self.kubeconfig.parent), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env=env
        )
        assert done.returncode == 0, f"kubectl {args}: {done.stderr}"
        return done.stdout

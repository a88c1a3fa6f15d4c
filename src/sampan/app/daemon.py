"""``sampan serve``: the whole cluster in one process, and what ``sampan up`` waits for."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan import __version__
from sampan.api.errors import StatusError
from sampan.apiserver.authn import Authenticator
from sampan.apiserver.discovery import Documents, version_info
from sampan.apiserver.front import Front
from sampan.apiserver.remote import loopback
from sampan.app import demo, pki, scheduling
from sampan.app.control import ControlSocket, Refused
from sampan.app.control_plane import ADMIN, ControlPlane
from sampan.app.members import Members, Node, try_sandbox
from sampan.client import kubeconfig
from sampan.lib import addressing, csr
from sampan.lib.clock import RealClock
from sampan.lib.datadir import DataDir, started_at
from sampan.lib.ids import Ids
from sampan.node.disks import release_devices
from sampan.node.runtime.base import Runtime, RuntimeFailure
from sampan.node.runtime.native.nodes import NetworkFailure, destroy
from sampan.scheduler.settings import SettingsError
from sampan.store.base import Corrupt
from sampan.store.sqlite import SqliteStore

VOLATILE = ("events/", "leases.coordination.k8s.io/")
_KINDS = ("net", "ipc", "pid", "mnt", "uts")
_STARTUP_SECONDS = 60.0
log = logging.getLogger("sampan")


class CannotStart(Exception):
    """The cluster cannot start; the message is one clear line for the user."""


@dataclass(frozen=True, slots=True)
class Config:
    """What ``sampan up`` passes on (its JSON names)."""

    name: str
    dataDir: str
    nodes: int
    port: int
    runtime: str
    context: str
    userKubeconfig: str
    merge: bool
    clusterCIDR: str
    serviceCIDR: str
    stopped: tuple[int, ...] = ()  # indexes of nodes that stay down
    members: tuple[int, ...] = ()  # indexes of all nodes; the first ones where empty
    schedulerConfig: str = ""  # a file with a KubeSchedulerConfiguration; kept from then on


class Daemon:
    """One cluster from start to stop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.addresses = addressing.plan(
            pods=config.clusterCIDR,
            services=config.serviceCIDR,
            last=max(config.members, default=config.nodes),
        )
        self.place = DataDir(Path(config.dataDir))
        self.clock = RealClock()
        self.ids = Ids()
        self.rng = random.Random()
        self.since: dict[str, float] = {}
        self.server = ""
        self._control: ControlSocket | None = None
        self._front: Front | None = None
        self._plane: ControlPlane | None = None
        self._store: SqliteStore | None = None
        self._members: Members | None = None
        self._is_ready = False

    # -- start ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Each stage is told on standard output as it ends. Raises CannotStart."""
        try:
            self._store = await SqliteStore.open(self.place.store, volatile=VOLATILE)
        except Corrupt as e:
            raise CannotStart(str(e)) from e
        self._stage("store")
        hosts = [
            self.place.address, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
            "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
            self.addresses.primary.api, self.addresses.primary.api_end,
        ]  # fmt: skip
        try:
            self.pki = pki.ensure(self.place.pki, hosts, now=self.clock.now())
        except (OSError, ValueError) as e:
            raise CannotStart(str(e)) from e
        self._stage("certificates")
        await self._start_api()
        self._stage("api")
        assert self._plane is not None
        await self._plane.start_control()
        self._stage("controllers")
        self._stage("scheduler")
        await self._start_nodes()
        self._stage("nodes")
        await self._until_ready()
        self._write_state()
        self.write_marker()
        await self._open_control()
        self._is_ready = True
        self._tell({"ready": True})

    async def _start_api(self) -> None:
        assert self._store is not None
        try:
            settings = scheduling.load(self.config.schedulerConfig, self.place.scheduler)
        except SettingsError as e:
            raise CannotStart(str(e)) from e
        plane = self._plane = ControlPlane(
            self._store, clock=self.clock, ids=self.ids, rng=self.rng,
            root_ca=self.pki.ca.certificate.decode(), sign=csr.signer(self.pki.ca),
            token_key=self.pki.service_accounts,
            addresses=self.addresses, host_address=self.place.address,
            usage=lambda: {n.name: n.agent.usage for n in self._running()},
            proxy=self.pki.proxy, reach=self._reach,
            scheduling=settings,
        )  # fmt: skip
        await plane.start_api()
        documents = Documents(plane.registry, plane.schemas, version=version_info())
        documents.follow(plane.aggregation)
        self._front = Front(
            plane.api, documents=documents, authorizer=plane.authorizer, clock=self.clock,
            authenticator=Authenticator(tokens=plane.tokens, authorizer=plane.authorizer),
            streams=self._streams, aggregation=plane.aggregation,
            ready=lambda: [("startup", self._is_ready, "still starting")],
        )  # fmt: skip
        self._tls = self._tls_context()
        address, port = self.place.address, self.config.port
        try:
            port = await self._front.listen(address, port, self._tls)
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise CannotStart(f"port {port} is taken on {address} (see --port)") from e
            raise CannotStart(f"cannot listen on {address}:{port}: {e.strerror}") from e
        self.server = f"https://{address}:{port}"
        documents.reached_at(f"{address}:{port}")
        plane.load_balancers.reserve(port)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        directory = self.place.pki
        context.load_cert_chain(directory / "apiserver.crt", directory / "apiserver.key")
        context.load_verify_locations(directory / "ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def _reach(self, host: str, port: int, timeout: float) -> tuple[Any, Any]:
        """A connection to an address of the cluster: from inside a node that runs."""
        if self.config.runtime != "native":
            return await loopback(host, port, timeout)
        space = next((n.space for n in self._running() if n.space is not None), None)
        if space is None:
            raise OSError(None, "no node runs")
        return await space.connect(host, port, timeout)

    def _streams(self, node: str) -> Any:
        return next((n.agent.streams for n in self._running() if n.name == node), None)

    def _running(self) -> list[Node]:
        return self._members.running if self._members is not None else []

    async def _start_nodes(self) -> None:
        assert self._plane is not None and self._front is not None
        members = self._members = Members(
            self._plane, self._front, cluster=self.config.name, place=self.place,
            clock=self.clock, ids=self.ids, tls=self._tls, addresses=self.addresses,
            native=self.config.runtime == "native", changed=self.write_marker,
        )  # fmt: skip
        indexes = self.config.members or range(1, self.config.nodes + 1)
        try:
            await members.begin(indexes, stopped=self.config.stopped)
        except NetworkFailure as e:
            raise CannotStart(str(e)) from e

    async def _until_ready(self) -> None:
        """Honestly ready: every node is Ready by the API's own word, the default service account
        is there, and each node has just run a sandbox."""
        assert self._plane is not None
        client = self._plane.client(ADMIN)
        try:
            async with asyncio.timeout(_STARTUP_SECONDS):
                for node in self._running():
                    while not await self._node_is_ready(client, node.name):
                        await asyncio.sleep(0.01)
                while not self._plane.engine.caches["serviceaccounts"].get("default", "default"):
                    await asyncio.sleep(0.005)
                await asyncio.gather(
                    *(try_sandbox(n.runtime, self.ids.uid()) for n in self._running())
                )
        except TimeoutError as e:
            raise CannotStart(f"a node did not become ready; see {self.place.log}") from e
        except RuntimeFailure as e:
            raise CannotStart(f"a pod cannot be started: {e}") from e

    @staticmethod
    async def _node_is_ready(client: Any, name: str) -> bool:
        try:
            node = await client.get("nodes", name)
        except StatusError:
            return False
        return any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in node.status.get("conditions") or ()
        )

    def _write_state(self) -> None:
        config = kubeconfig.make(
            self.config.context, self.server, ca=self.pki.ca.certificate,
            certificate=self.pki.admin.certificate, key=self.pki.admin.key,
        )  # fmt: skip
        kubeconfig.write(self.place.kubeconfig, config)
        user = Path(self.config.userKubeconfig)
        try:
            if self.config.merge:
                kubeconfig.merge(user, config)
            else:
                kubeconfig.write(user, config)
        except (kubeconfig.Unreadable, OSError) as e:
            raise CannotStart(f"cannot write the kubeconfig: {e}") from e

    def write_marker(self) -> None:
        """Tell others whose directory this is, from the first moment on: `down` needs it also
        after a start that failed half way."""
        c = self.config
        members = self._members.indexes if self._members is not None else [*c.members]
        stopped = self._members.stopped if self._is_ready and self._members else [*c.stopped]
        state = {
            "name": c.name, "pid": os.getpid(), "startTicks": started_at(os.getpid()),
            "server": self.server, "nodes": len(members) or c.nodes, "port": c.port,
            "members": members, "stopped": stopped, "runtime": c.runtime,
            "context": c.context, "userKubeconfig": c.userKubeconfig, "merge": c.merge,
            "version": __version__, "clusterCIDR": c.clusterCIDR, "serviceCIDR": c.serviceCIDR,
        }  # fmt: skip
        part = self.place.state.with_suffix(".part")
        part.write_text(json.dumps(state))
        part.replace(self.place.state)

    async def _open_control(self) -> None:
        self._control = ControlSocket(self.place.socket, {
            "status": self._status, "ps": self._ps, "image-load": self._image_load,
            "image-ls": self._image_ls, "image-rm": self._image_rm, "demo": self._demo,
            "snapshot": self._snapshot, "node": self._node,
        })  # fmt: skip
        await self._control.start()

    def _stage(self, name: str) -> None:
        self.since[name] = self.clock.now()
        self._tell({"stage": name})

    @staticmethod
    def _tell(news: Mapping[str, Any]) -> None:
        try:
            print(json.dumps(news), flush=True)
        except BrokenPipeError:
            log.debug("nobody listens to the start any more")

    # -- stop ----------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let go of everything in order; containers go on."""
        if self._control is not None:
            await self._control.stop()
        if self._front is not None:
            await self._front.close(grace=1.0)
        if self._members is not None:
            await self._members.close()
        if self._plane is not None:
            await self._plane.stop()
        if self._members is not None:
            self._members.release()
        if self._store is not None:
            await self._store.close()

    async def _snapshot(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The store as of one revision, in a file of its own."""
        assert self._store is not None
        try:
            await self._store.backup(Path(request["path"]))
        except sqlite3.Error as e:
            raise Refused(f"the store cannot be copied: {e}") from e
        return {}

    # -- what the command asks -----------------------------------------------------------------

    async def _status(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        now = self.clock.now()
        assert self._plane is not None
        caches = self._plane.engine.caches
        nodes = []
        members = self._members
        for index in members.indexes if members is not None else ():
            assert members is not None
            name = members.name_of(index)
            held, node = caches["nodes"].get("", name), members.find(name)
            ready = held is not None and any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in held.status.get("conditions") or ()
            )
            nodes.append({
                "name": name, "pid": node.pid if node else 0,
                "state": ("Ready" if ready else "NotReady") if node else "Stopped",
                "address": ",".join(self.addresses.node(index)),
                "podCIDR": ",".join(self.addresses.pods_of(index)),
            })  # fmt: skip
        pids = [os.getpid(), *(members.pids() if members is not None else ())]
        state = "Ready" if self._is_ready else "Starting"
        if any(n["state"] == "NotReady" for n in nodes):
            state = "NotReady"
        return {
            "name": self.config.name, "version": __version__, "state": state,
            "server": self.server, "context": self.config.context, "dataDir": str(self.place.root),
            "kubeconfig": str(self.place.kubeconfig), "runtime": self.config.runtime,
            "age": now - self.since.get("store", now),
            "components": [
                {"name": name, "state": "ready", "age": now - at} for name, at in self.since.items()
            ],
            "nodes": nodes, "pids": pids, "mainPids": [os.getpid()],
            "paths": {"log": str(self.place.log), "store": str(self.place.store),
                      "images": str(self.place.node_root / "images"),
                      "socket": str(self.place.socket)},
        }  # fmt: skip

    async def _ps(self, _request: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for node in self._running():
            for box in await node.runtime.sandboxes():
                where = {"node": node.name, "namespace": box.namespace, "pod": box.name}
                state = "running" if box.ready else "exited"
                rows.append({**where, "container": "POD", "id": box.id, "state": state,
                             "pid": box.pid, "namespaces": _namespaces(box.pid)})  # fmt: skip
                for c in box.containers:
                    rows.append({**where, "container": c.name, "id": c.id, "state": c.state,
                                 "pid": c.pid, "namespaces": _namespaces(c.pid)})  # fmt: skip
        return rows

    def _any_runtime(self) -> Runtime:
        if not (running := self._running()):
            raise Refused("no node runs")
        return running[0].runtime

    async def _image_load(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            loaded = await self._any_runtime().load_images(str(request["path"]))
        except RuntimeFailure as e:
            raise Refused(str(e)) from e
        return [_image(i) for i in loaded]

    async def _image_ls(self, _request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [_image(i) for i in await self._any_runtime().images()]

    async def _image_rm(self, request: Mapping[str, Any]) -> None:
        name = str(request["image"])
        runtime = self._any_runtime()
        if await runtime.image(name) is None:
            raise Refused(f"there is no image {name}")
        await runtime.remove_image(name)

    async def _node(self, request: Mapping[str, Any]) -> Any:
        """Nodes that come, stop, start again and go."""
        members, verb, name = self._members, request["verb"], str(request.get("name", ""))
        if members is None or not self._is_ready:
            raise Refused("the cluster is still starting")
        try:
            if verb == "add":
                return await members.add(int(request["count"]))
            if verb == "stop":
                return await members.stop(name)
            if verb == "start":
                return await members.start(name)
            return await members.remove(name, purge=bool(request.get("purge")))
        except RuntimeFailure as e:
            raise Refused(f"a pod cannot be started there: {e}") from e

    async def _demo(self, _request: Mapping[str, Any]) -> str:
        assert self._plane is not None
        try:
            return await demo.run(self._plane.client(ADMIN))
        except TimeoutError as e:
            raise Refused("the demo's pods did not become available in time") from e


def _image(image: Any) -> dict[str, Any]:
    return {"id": image.id, "tags": list(image.tags), "size": image.size}


def _namespaces(pid: int) -> dict[str, str]:
    """Namespace inodes of a process, as ``/proc/<pid>/ns`` shows them."""
    found = {}
    for kind in _KINDS if pid else ():
        try:
            text = os.readlink(f"/proc/{pid}/ns/{kind}")
        except OSError:
            continue
        found[kind] = text.partition("[")[2].rstrip("]")
    return found


async def _run(config: Config) -> int:
    daemon = Daemon(config)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if daemon.place.running() is not None:
        Daemon._tell({"error": f"{daemon.place.root} is in use by another process"})
        return 1
    daemon.write_marker()
    try:
        starting = asyncio.ensure_future(daemon.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await starting
        _detach()
        await stop.wait()
        return 0
    except CannotStart as e:
        Daemon._tell({"error": str(e)})
        return 1
    except asyncio.CancelledError:
        return 1
    finally:
        await daemon.stop()


def _detach() -> None:
    """Nobody reads our standard output from here on."""
    gc.collect()
    gc.freeze()
    gc.enable()
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def serve(text: str) -> int:
    """Run a cluster until SIGTERM. text: the JSON of ``Config``. The exit code."""
    import uvloop

    logging.basicConfig(
        stream=sys.stderr, level=os.environ.get("SAMPAN_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )  # fmt: skip
    logging.Formatter.converter = time.gmtime
    config = Config(**json.loads(text))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


def cleanup(root: str) -> int:
    """End everything a cluster left, its daemon being gone already. The exit code."""
    place = DataDir(Path(root))
    destroy(place.node_root)
    release_devices(place.volumes)
    shutil.rmtree(place.node_root / "pods", ignore_errors=True)
    return 0

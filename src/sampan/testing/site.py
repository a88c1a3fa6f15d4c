"""A cluster of real kernels without containers: the control plane, the nodes' network, and pods
that are namespaces. For tests and benches of what the network does, and how soon.

``Site`` runs in the caller's event loop. Pods are API objects whose status the site writes, linked
to their node as the runtime links them; each answers its own address by TCP and UDP at port 8080.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.app.control_plane import ADMIN, ControlPlane
from sampan.app.node_network import NodeNetwork
from sampan.lib import csr, tls
from sampan.lib.addressing import DEFAULT, Plan
from sampan.lib.clock import RealClock
from sampan.lib.ids import Ids
from sampan.node.runtime.base import SandboxSpec
from sampan.node.runtime.native.launch import start_pause
from sampan.node.runtime.native.nodes import Nodes, Space, destroy
from sampan.store.memory import MemoryStore

PORT = 8080
_EVERY = 0.002  # seconds between two tries
_PATIENCE = 0.25  # of one try; allowed ones take a millisecond
_STEADY, _PATIENT = 20, 5.0  # tries that have to be right in the end; seconds until they must be


class SitePod:
    """A network namespace linked to a node, and its API object's key."""

    def __init__(self, name: str, namespace: str, addresses: tuple[str, ...], space: Space) -> None:
        self.name, self.namespace, self.space = name, namespace, space
        self.addresses, self.address = addresses, addresses[0]
        self.seen: list[str] = []  # clients, as the pod saw them


class Site:
    """See the module. address: where LoadBalancers are on the host. plan: the cluster's own."""

    def __init__(self, root: Path, *, nodes: int, address: str, plan: Plan = DEFAULT) -> None:
        self.plan = plan
        self.pods: list[SitePod] = []
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self._address = address
        self._store = MemoryStore()
        self._nodes = Nodes(root, plan)
        self._servers: list[Any] = []
        self._pids: list[int] = []
        self._key, self._authority = tls.new_key(), tls.new_authority("site", now=RealClock().now())
        self.plane = self._new_plane()
        self.network: NodeNetwork | None = None
        self.client = self.plane.client(ADMIN)

    def _new_plane(self) -> ControlPlane:
        return ControlPlane(
            self._store, clock=RealClock(), ids=Ids(random.Random(1)), rng=random.Random(1),
            root_ca="PEM", sign=csr.signer(self._authority), token_key=self._key,
            addresses=self.plan, host_address=self._address,
        )  # fmt: skip

    @property
    def spaces(self) -> dict[str, Space]:
        return self._nodes.spaces

    async def start(self) -> None:
        await self._nodes.ensure(self.names)
        await self.plane.start_api()
        for i, name in enumerate(self.names):
            status = {
                "addresses": [{"type": "InternalIP", "address": a} for a in self.plan.node(i + 1)],
                "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            }
            await self.client.create("nodes", {"metadata": {"name": name}})
            await self.client.patch("nodes", name, {"status": status}, subresource="status")
        await self.plane.start_control()
        await self.start_network()
        await self.until(lambda: self._has_account("default"))

    async def _has_account(self, namespace: str) -> bool:
        page = await self.client.list("serviceaccounts", namespace)
        return any(o.name == "default" for o in page.items)

    async def start_network(self, resolv_conf: str = "") -> None:
        """resolv_conf: the host's, for nodes that have a way out."""
        self.network = NodeNetwork(
            self.plane, [*self.spaces.values()], self.plan, address=self._address,
            resolv_conf=resolv_conf,
        )  # fmt: skip
        await self.network.start()

    async def stop_network(self) -> None:
        """As if the process were gone: what kernels hold stays."""
        assert self.network is not None
        await self.network.stop()
        self.network = None

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        if self.network is not None:
            await self.network.stop()
        await self.plane.stop()
        for pod in self.pods:
            pod.space.close()
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
        self._nodes.close()

    async def until(self, check: Callable[[], Awaitable[bool]], *, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not await check():
                await asyncio.sleep(0.002)

    # -- what there is

    async def namespace(self, name: str, **labels: str) -> None:
        await self.client.create("namespaces", {"metadata": {"name": name, "labels": labels}})
        await self.until(lambda: self._has_account(name))

    async def pod(
        self, name: str, node: int, *, namespace: str = "default",
        labels: dict[str, str] | None = None, ready: bool = True, ports: list[Body] | None = None,
    ) -> SitePod:  # fmt: skip
        """A pod that serves on the node of that number (from 1), guarded as the agent does."""
        number = len(self.pods) + 2
        addresses = tuple(
            str(ipaddress.ip_network(network)[number]) for network in self.plan.pods_of(node)
        )
        container = {"name": "c", "image": "i", "ports": ports or []}
        spec: Body = {"nodeName": f"n{node}", "containers": [container]}
        meta = {"name": name, "labels": labels or {}}
        made = await self.client.create("pods", {"metadata": meta, "spec": spec}, namespace)
        assert self.network is not None
        await self.network.policies.guard(namespace, name, made.uid, addresses)
        sandbox = SandboxSpec(id=f"p{number}", namespace=namespace, name=name, uid=made.uid)
        space = self.spaces[f"n{node}"]
        pid = await space.run(start_pause, sandbox, addresses, self.plan.node(node))
        self._pids.append(pid)
        pod = SitePod(name, namespace, addresses, Space(f"pod-{name}", 0, pid))
        self.pods.append(pod)
        await self._serve(pod)
        ips = [{"ip": ip} for ip in addresses]
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": ips}
        await self.client.patch("pods", name, {"status": status}, namespace, subresource="status")
        await self.ready(pod, ready)
        return pod

    async def ready(self, pod: SitePod, is_ready: bool) -> Obj:
        condition = {"type": "Ready", "status": str(is_ready)}
        return await self.client.patch(
            "pods", pod.name, {"status": {"conditions": [condition]}}, pod.namespace,
            subresource="status",
        )  # fmt: skip

    async def service(self, name: str, *, namespace: str = "default", **spec: Any) -> Body:
        """A Service of port 80 to the pods' 8080, TCP and UDP; its spec."""
        ports = [{"name": "tcp", "port": 80, "targetPort": PORT},
                 {"name": "udp", "port": 80, "targetPort": PORT, "protocol": "UDP"}]  # fmt: skip
        body = {"metadata": {"name": name}, "spec": {"ports": ports, **spec}}
        return (await self.client.create("services", body, namespace)).spec

    async def _serve(self, pod: SitePod) -> None:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pod.seen.append(_plain(writer.get_extra_info("peername")[0]))
            writer.write(pod.address.encode())
            writer.close()

        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, _data: bytes, addr: tuple[str, int]) -> None:
                pod.seen.append(_plain(addr[0]))
                self.transport.sendto(pod.address.encode(), addr)

        every = "::" if any(":" in a for a in pod.addresses) else "0.0.0.0"
        sock = await pod.space.listen(every, PORT)
        self._servers.append(await asyncio.start_server(answer, sock=sock))
        udp = await pod.space.run(_udp, every, PORT)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=udp)
        self._servers.append(transport)


def _udp(host: str, port: int) -> socket.socket:
    """Of every address of both families where *host* is of IPv6."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock


def _plain(client: str) -> str:
    """An address of IPv4 as such, also from a socket of both families."""
    return client.removeprefix("::ffff:")


async def tcp(space: Space, host: str, port: int = PORT, patience: float = _PATIENCE) -> str:
    """Who answers a new connection from *space*; '' where nobody does."""
    try:
        reader, writer = await space.connect(host, port, patience)
        async with asyncio.timeout(patience):
            answer = await reader.read()
        writer.close()
    except (OSError, TimeoutError):
        return ""
    return answer.decode()


async def udp(
    space: Space, host: str, port: int = PORT, data: bytes = b"?", patience: float = _PATIENCE
) -> bytes:
    """What is answered to one datagram from a port of its own; b'' for nothing."""
    sock = await space.run(_udp, "::" if ":" in host else "0.0.0.0", 0)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            await loop.sock_connect(sock, (host, port))
            await loop.sock_sendall(sock, data)
            return await loop.sock_recv(sock, 4096)
    except (OSError, TimeoutError):
        return b""
    finally:
        sock.close()


async def how_soon(
    attempt: Callable[[], Awaitable[bool]], change: Callable[[], Awaitable[Any]], *,
    window: float = 0.25,
) -> float:  # fmt: skip
    """Seconds from *change*'s end (the API's answer) until tries come out as they shall. Tries
    begin every two milliseconds, before the change already; the time is that of the first try after
    the last wrong one. It takes *window* at least, and as long as tries still come out wrong; after
    five seconds of that: ``inf``."""
    loop = asyncio.get_running_loop()
    tries: list[tuple[float, asyncio.Task[bool]]] = []
    stop = asyncio.Event()

    async def keep_trying() -> None:
        while not stop.is_set():
            tries.append((loop.time(), asyncio.ensure_future(attempt())))
            await asyncio.sleep(_EVERY)

    trier = asyncio.create_task(keep_trying())
    await asyncio.sleep(5 * _EVERY)
    await change()
    answered = loop.time()
    while True:
        await asyncio.sleep(window)
        ended = [task.result() for _began, task in tries if task.done()]
        if all(ended[-_STEADY:]) or loop.time() > answered + _PATIENT:
            break
    stop.set()
    await trier
    outcomes = [(began, await task) for began, task in tries]
    wrong = [i for i, (_began, right) in enumerate(outcomes) if not right]
    if not wrong:
        return 0.0
    if wrong[-1] + 1 >= len(outcomes):
        return float("inf")
    return max(outcomes[wrong[-1] + 1][0] - answered, 0.0)


@asynccontextmanager
async def site(
    *, nodes: int = 2, address: str = "127.88.7.1", plan: Plan = DEFAULT
) -> AsyncIterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="sampan-site-"))
    made = Site(root, nodes=nodes, address=address, plan=plan)
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        destroy(root)
        shutil.rmtree(root)

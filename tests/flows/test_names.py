"""Names in the whole cluster, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from sampan.api.errors import StatusError
from sampan.app.control_plane import controller_user
from sampan.lib.loop import run_virtual
from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.message import Message, Question
from sampan.network.dns.service import ClusterNames
from sampan.testing.world import World, world

DNS = "kube-dns.kube-system.svc.cluster.local"


async def _there(w: World, resource: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            try:
                return await w.client.get(resource, "kube-dns", "kube-system")
            except StatusError:
                await asyncio.sleep(0.1)


def _ask(followed: ClusterNames, name: str, kind: int = dns.A) -> list[bytes]:
    query = Message(1, dns.RD, questions=(Question(names.wire(name), kind),))
    answer = followed.responder.respond(dns.encode(query), udp=True)
    assert isinstance(answer, bytes)
    return [r.data for r in dns.parse(answer).answers]


def test_the_dns_service_has_its_name_and_comes_back() -> None:
    async def main() -> None:
        async with world() as w:
            service = await _there(w, "services")
            assert service.spec["clusterIP"] == "10.43.0.10"
            assert service.labels["k8s-app"] == "kube-dns"
            slice_ = await _there(w, "endpointslices.discovery.k8s.io")
            assert slice_.body["endpoints"][0]["addresses"] == ["10.44.1.2"]
            user = controller_user("coredns")
            followed = ClusterNames(w.plane.client(user), clock=w.plane.clock)
            await followed.start()
            assert _ask(followed, DNS) == [bytes((10, 43, 0, 10))]
            assert len(_ask(followed, f"_dns-tcp._tcp.{DNS}", dns.SRV)) == 1
            assert _ask(followed, "kubernetes.default.svc.cluster.local") == [bytes((10, 43, 0, 1))]
            await w.client.delete("services", "kube-dns", "kube-system")
            await w.client.delete("endpointslices.discovery.k8s.io", "kube-dns", "kube-system")
            assert (await _there(w, "services")).uid != service.uid
            await _there(w, "endpointslices.discovery.k8s.io")
            await asyncio.sleep(1)
            assert _ask(followed, DNS) == [bytes((10, 43, 0, 10))]
            await followed.stop()

    run_virtual(main())

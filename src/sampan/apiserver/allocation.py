"""Cluster addresses and node ports of Services: given with the write that asks for them.

What a service holds is in the store: an IPAddress per cluster address, a reservation per port.
They are written and removed in the very commit that writes or removes the service, each with the
expectation that nobody else has it. So nothing is held by a service that does not exist, and two
writers - in one process or in two - never get the same: the slower one's commit does not happen,
and it chooses again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from sampan.api.errors import internal
from sampan.api.obj import Body, Key, Obj, encode
from sampan.api.rules import addresses, service_fields, services
from sampan.api.rules.addresses import IP_ADDRESSES, SERVICE_CIDRS, Network, Range
from sampan.api.rules.field import invalid
from sampan.apiserver.pages import obj_of
from sampan.lib.addressing import DEFAULT
from sampan.lib.clock import rfc3339
from sampan.store.base import Conflict, Delete, Put, Record

if TYPE_CHECKING:
    from sampan.apiserver.endpoint import ApiServer
    from sampan.apiserver.stages import Write

NODE_PORTS = (30000, 32767)
_PORTS = "allocations/nodeports/"
_TRIES = 16  # at random, before the whole range is looked through
_RESERVED = 10  # the address of DNS in the first range: never handed out by chance
_ALLOCATED_IP = "provided IP is already allocated"
_ALLOCATED_PORT = "provided port is already allocated"
_ELSEWHERE = "the provided network does not match the current range"
_FULL = "range is full"


class _Refused(Exception):
    """An address or port that cannot be had; the message is upstream's."""


def port_key(port: int) -> str:
    """The store's key of a node port's reservation."""
    return f"{_PORTS}{port}"


class ServiceAllocator:
    """cidrs: the default ServiceCIDR, its first range of the primary family. ports: first and
    last node port."""

    def __init__(
        self, *, cidrs: Sequence[str] = DEFAULT.services, ports: tuple[int, int] = NODE_PORTS
    ) -> None:
        self.cidrs = tuple(cidrs)
        self._defaults = [ipaddress.ip_network(c) for c in cidrs]
        self._families = [f"IPv{n.version}" for n in self._defaults]
        self._ports = addresses.of_ports(*ports)
        self._last = ports[1]
        self.ports = ports
        self._repaired: dict[tuple[str, str], list[int]] = {}

    # -- a write -------------------------------------------------------------------------------

    async def allocate(self, w: Write) -> None:
        """Fill in what the service lacks; ``w.beside`` gets what its commit must also do.
        Raises StatusError Invalid in upstream's words."""
        spec: Body = w.body.setdefault("spec", {})
        before: Body | None = (w.old.body.get("spec") or {}) if w.old is not None else None
        causes = services.cluster_ips(spec) if spec.get("type") != "ExternalName" else []
        causes = causes or service_fields.families(spec, before, self._families)
        if causes:
            raise w.invalid(causes)
        await self._addresses(w, spec, before or {})
        await self._node_ports(w, spec, before)
        await self._health_port(w, spec, before or {})
        await self._beside(w, spec, before or {})

    async def release(self, api: ApiServer, service: Obj) -> list[Put | Delete]:
        """What must go with *service*."""
        spec = service.spec
        gone = [Key(IP_ADDRESSES, "", a).path for a in _canonical(spec)]
        gone += [port_key(p) for p in sorted(service_fields.held_ports(spec))]
        return await self._deletions(api, gone, service.namespace, service.name)

    async def _beside(self, w: Write, spec: Body, before: Body) -> None:
        meta = w.body["metadata"]
        mine, theirs = _canonical(spec), _canonical(before)
        ports, had = service_fields.held_ports(spec), service_fields.held_ports(before)
        ops: list[Put | Delete] = []
        for address in (a for a in mine if a not in theirs):
            body = addresses.new_ip_address(address, w.body)
            body["metadata"]["uid"] = w.api.ids.uid()
            body["metadata"]["creationTimestamp"] = rfc3339(w.api.clock.now())
            ops.append(Put(Key(IP_ADDRESSES, "", address).path, encode(body), expect=0))
        owner = orjson.dumps({"namespace": meta["namespace"], "name": meta["name"]})
        ops += [Put(port_key(p), owner, expect=0) for p in sorted(ports - had)]
        gone = [Key(IP_ADDRESSES, "", a).path for a in theirs if a not in mine]
        gone += [port_key(p) for p in sorted(had - ports)]
        ops += await self._deletions(w.api, gone, meta["namespace"], meta["name"])
        w.beside = ops

    @staticmethod
    async def _deletions(
        api: ApiServer, keys: Iterable[str], namespace: str, name: str
    ) -> list[Put | Delete]:
        """Of those *keys* that are there and say that this service holds them."""
        ops: list[Put | Delete] = []
        for key in keys:
            record = await api.store.get(key)
            if record is not None and _holder(record) == (namespace, name):
                ops.append(Delete(key, expect=record.revision))
        return ops

    # -- addresses -----------------------------------------------------------------------------

    async def _addresses(self, w: Write, spec: Body, before: Body) -> None:
        if spec.get("type") == "ExternalName" or service_fields.is_headless(spec):
            return
        kept = len(before.get("clusterIPs") or ()) if before.get("type") != "ExternalName" else 0
        ips: list[str] = [*(spec.get("clusterIPs") or ())]
        asked = [*ips]
        for i, family in enumerate(spec.get("ipFamilies") or self._families[:1]):
            if i < kept and i < len(ips):
                continue  # validation sees to it that these do not change
            if i < len(ips):
                try:
                    await self._claim_address(w.api, ips[i])
                except _Refused as e:
                    text = f"failed to allocate IP {ips[i]}: {e}"
                    raise w.invalid([invalid("spec.clusterIPs", asked, text)]) from e
            else:
                ips.append(await self._free_address(w.api, family))
        if ips:
            spec["clusterIPs"], spec["clusterIP"] = ips, ips[0]

    async def _ranges(self, api: ApiServer) -> list[Network]:
        """Of all ready ServiceCIDRs, the default's first."""
        found = [obj_of(r) for r in (await api.store.range(Key.prefix(SERVICE_CIDRS))).records]
        found.sort(key=lambda c: (c.name != addresses.DEFAULT_CIDR, c.name))
        return [n for c in found if addresses.is_ready(c) for n in addresses.networks(c.body)]

    async def _claim_address(self, api: ApiServer, text: str) -> None:
        ip = ipaddress.ip_address(text)
        inside = (ip in n and int(ip) in addresses.of_network(n) for n in await self._ranges(api))
        if not any(inside):
            raise _Refused(_ELSEWHERE)
        if await api.store.get(Key(IP_ADDRESSES, "", str(ip)).path) is not None:
            raise _Refused(_ALLOCATED_IP)

    async def _free_address(self, api: ApiServer, family: str) -> str:
        for network in await self._ranges(api):
            if f"IPv{network.version}" != family:
                continue
            reserved = (
                {int(network.network_address) + _RESERVED} if network in self._defaults else set()
            )
            kind = type(network.network_address)
            number = await self._free(
                api, addresses.of_network(network), reserved=reserved,
                key=lambda n, kind=kind: Key(IP_ADDRESSES, "", str(kind(n))).path,  # type: ignore[misc]
                prefix=Key.prefix(IP_ADDRESSES),
            )  # fmt: skip
            if number is not None:
                return str(kind(number))
        raise internal(f"failed to allocate a serviceIP: {_FULL}")

    @staticmethod
    async def _free(
        api: ApiServer, numbers: Range, *, reserved: set[int], key: Callable[[int], str],
        prefix: str,
    ) -> int | None:  # fmt: skip
        """One that nobody holds: by chance from the upper band, else the first there is."""
        if not numbers.size:
            return None
        for _ in range(_TRIES):
            number = numbers.nth(api.ids.below(max(numbers.size - numbers.band, 1)))
            if number not in reserved and await api.store.get(key(number)) is None:
                return number
        taken = {r.key for r in (await api.store.range(prefix)).records}
        for index in range(numbers.size):
            number = numbers.nth(index)
            if number not in reserved and key(number) not in taken:
                return number
        return None

    # -- ports ---------------------------------------------------------------------------------

    async def _node_ports(self, w: Write, spec: Body, before: Body | None) -> None:
        if spec.get("type") not in service_fields.NODE_PORT_TYPES:
            return
        ports: list[Body] = spec.get("ports") or []
        held = service_fields.held_ports(before or {})
        claimed: set[int] = set()
        shared: dict[Any, int] = {}  # one node port for all protocols of a new service's port
        for i, port in enumerate(ports):
            wanted = port.get("nodePort") or 0
            if not wanted and not service_fields.wants_node_ports(spec):
                continue
            known = shared.get(port.get("port")) if before is None else None
            if known is None and before is None and not wanted:
                wanted = next(
                    (p["nodePort"] for p in ports
                     if p.get("port") == port.get("port") and p.get("nodePort")), 0,
                )  # fmt: skip
            if known is not None and wanted in (0, known):
                port["nodePort"] = known
                continue
            if not wanted:
                wanted = await self._free_port(w.api, claimed)
            elif wanted not in held and (before is None or wanted not in claimed):
                try:
                    await self._claim_port(w.api, wanted, claimed)
                except _Refused as e:
                    cause = invalid(f"spec.ports[{i}].nodePort", wanted, str(e))
                    raise w.invalid([cause]) from e
            port["nodePort"] = wanted
            claimed.add(wanted)
            shared.setdefault(port.get("port"), wanted)

    async def _health_port(self, w: Write, spec: Body, before: Body) -> None:
        if not service_fields.needs_health_check(spec):
            return
        had = before.get("healthCheckNodePort") if service_fields.needs_health_check(before) else 0
        wanted = spec.get("healthCheckNodePort") or 0
        if had:
            if wanted != had:
                why = "field is immutable"
                raise w.invalid([invalid("spec.healthCheckNodePort", wanted, why)])
            return
        claimed = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
        if not wanted:
            spec["healthCheckNodePort"] = await self._free_port(w.api, claimed)
            return
        try:
            await self._claim_port(w.api, wanted, claimed)
        except _Refused as e:
            text = f"failed to allocate requested HealthCheck NodePort {wanted}: {e}"
            raise internal(text) from e

    async def _claim_port(self, api: ApiServer, port: int, claimed: set[int]) -> None:
        if port not in self._ports:
            span = f"{self._ports.first}-{self._last}"
            raise _Refused(
                "provided port is not in the valid range. The range of valid ports is " + span
            )
        if port in claimed or await api.store.get(port_key(port)) is not None:
            raise _Refused(_ALLOCATED_PORT)

    async def _free_port(self, api: ApiServer, claimed: set[int]) -> int:
        port = await self._free(api, self._ports, reserved=claimed, key=port_key, prefix=_PORTS)
        if port is None:
            raise internal(f"failed to allocate a nodePort: {_FULL}")
        return port

    # -- start ---------------------------------------------------------------------------------

    def default_cidr(self, now: float) -> Body:
        """The ServiceCIDR every cluster has, ready at once."""
        ready = addresses.ready_condition(rfc3339(now))
        return {
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": addresses.DEFAULT_CIDR, "finalizers": [addresses.FINALIZER]},
            "spec": {"cidrs": [*self.cidrs]}, "status": {"conditions": [ready]},
        }  # fmt: skip

    async def extend_default(self, api: ApiServer) -> None:
        """A cluster that gets its second family later: its default ServiceCIDR gets the range."""
        key = Key(SERVICE_CIDRS, "", addresses.DEFAULT_CIDR).path
        record = await api.store.get(key)
        if record is None:
            return
        body: Body = orjson.loads(record.value)
        if len(self.cidrs) == 2 and body["spec"]["cidrs"] == [self.cidrs[0]]:
            body["spec"]["cidrs"] = [*self.cidrs]
            await api.store.commit(Put(key, encode(body), expect=record.revision))

    async def repair_ports(self, api: ApiServer) -> None:
        """Reservations follow the services: what no service holds is free, what one holds is
        reserved. Nothing makes them differ but a store that was edited by hand."""
        wanted: dict[str, tuple[str, str]] = {}
        for record in (await api.store.range(Key.prefix("services"))).records:
            service = obj_of(record)
            for port in sorted(service_fields.held_ports(service.spec)):
                wanted.setdefault(port_key(port), (service.namespace, service.name))
        held = {r.key: r for r in (await api.store.range(_PORTS)).records}
        ops: list[Put | Delete] = [
            Delete(key, expect=r.revision) for key, r in held.items() if key not in wanted
        ]
        for key, (namespace, name) in wanted.items():
            record_ = held.get(key)
            if record_ is None:
                port = int(key.removeprefix(_PORTS))
                self._repaired.setdefault((namespace, name), []).append(port)
            if record_ is None or _holder(record_) != (namespace, name):
                owner = orjson.dumps({"namespace": namespace, "name": name})
                ops.append(Put(key, owner, expect=record_.revision if record_ else 0))
        if ops:
            try:
                await api.store.commit(*ops)
            except Conflict:
                return  # another server does the same just now

    def take_repaired(self, namespace: str, name: str) -> Sequence[int]:
        """The ports of a service that nobody had reserved at the start; told once."""
        return self._repaired.pop((namespace, name), ())


def _canonical(spec: Body) -> list[str]:
    held = []
    for text in service_fields.cluster_addresses(spec):
        try:
            held.append(str(ipaddress.ip_address(text)))
        except ValueError:
            continue  # refused by validation; it never held anything
    return held


def _holder(record: Record) -> tuple[str, str]:
    """Namespace and name of the service that holds an address or a port."""
    body: Body = orjson.loads(record.value)
    if "kind" not in body:
        return body["namespace"], body["name"]
    parent = (body.get("spec") or {}).get("parentRef") or {}
    if parent.get("group") or parent.get("resource") != "services":
        return "", ""
    return parent.get("namespace", ""), parent.get("name", "")

"""Admission plug-ins: what a write gets added, and what it may not be."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Any, Protocol

from sampan.api.errors import Cause, StatusError, forbidden, not_found
from sampan.api.obj import Body, Key, Obj
from sampan.api.rules.field import invalid as invalid_field
from sampan.apiserver.authz import check_escalation
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import Write
from sampan.apiserver.storage_admission import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    PhaseTransitions,
    StorageObjectInUseProtection,
)

_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_DEFAULT_WAIT = 1.0
_TOKEN_SECONDS = 3607  # an hour and a bit: the mark by which upstream knows its own volume
_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"


class _Quiet:
    """A plug-in that does one of the two only."""

    async def mutate(self, w: Write) -> None:
        """Nothing to add."""

    async def check(self, w: Write) -> None:
        """Nothing to refuse."""


class NamespaceLifecycle(_Quiet):
    """Nothing is created in a namespace that is not there or on its way out, and some namespaces
    are never deleted."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or not w.t.namespaced:
            return
        namespace = await w.api.find("namespaces", "", w.namespace)
        if namespace is None:
            raise not_found("namespaces", w.namespace)
        if namespace.is_deleting:
            error = forbidden(
                w.t.resource, w.name,
                f"unable to create new content in namespace {w.namespace} because it is being "
                "terminated",
            )  # fmt: skip
            text = f"namespace {w.namespace} is being terminated"
            error.causes = [Cause("metadata.namespace", "NamespaceTerminating", text)]
            raise error

    async def check(self, w: Write) -> None:
        if w.verb == "delete" and w.t.resource == "namespaces" and w.call.name in _IMMORTAL:
            raise forbidden("namespaces", w.call.name, "this namespace may not be deleted")


class ServiceAccounts(_Quiet):
    """Every pod runs as a service account and gets its token, unless it says otherwise."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "pods":
            return
        spec = w.body["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        account = await self._account(w, name)
        if account is None:
            raise forbidden(
                "pods", w.name,
                f"error looking up service account {w.namespace}/{name}: "
                f'serviceaccount "{name}" not found',
            )  # fmt: skip
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        body = account.body
        wanted = spec.get("automountServiceAccountToken")
        if wanted is None:
            wanted = body.get("automountServiceAccountToken", True)
        if wanted:
            self._mount(w, spec)
        if not spec.get("imagePullSecrets") and body.get("imagePullSecrets"):
            spec["imagePullSecrets"] = body["imagePullSecrets"]

    @staticmethod
    async def _account(w: Write, name: str) -> Obj | None:
        """The account; the default one of a new namespace is waited for a little, since its
        controller is about to make it."""
        delay, left = 0.005, _DEFAULT_WAIT if name == "default" else 0.0
        while True:
            account = await w.api.find("serviceaccounts", w.namespace, name)
            if account is not None or left <= 0:
                return account
            await asyncio.sleep(delay)
            left -= delay
            delay *= 1.5

    @staticmethod
    def _mount(w: Write, spec: Body) -> None:
        volumes = spec.get("volumes") or []
        present = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), "")
        volume = present or f"kube-api-access-{w.api.ids.suffix()}"
        mount = {"name": volume, "readOnly": True, "mountPath": _TOKEN_PATH}
        needed = False
        for holder in ("initContainers", "containers"):
            for container in spec.get(holder) or ():
                mounts = container.setdefault("volumeMounts", [])
                if all(m.get("mountPath") != _TOKEN_PATH for m in mounts):
                    mounts.append(dict(mount))
                    needed = True
        if needed and not present:
            spec["volumes"] = [*volumes, _token_volume(volume)]


def _token_volume(name: str) -> Body:
    namespace = {"path": "namespace",
                 "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}  # fmt: skip
    sources: list[Body] = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt",
                       "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]  # fmt: skip
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


class DefaultTolerations(_Quiet):
    """A pod stays five minutes on a node that is lost, unless it says otherwise."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "pods":
            return
        tolerations = w.body["spec"].setdefault("tolerations", [])
        for key in (_NOT_READY, _UNREACHABLE):
            if not any(self._covers(t, key) for t in tolerations):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute",
                     "tolerationSeconds": 300}
                )  # fmt: skip

    @staticmethod
    def _covers(toleration: Body, key: str) -> bool:
        return toleration.get("key", "") in ("", key) and toleration.get("effect", "") in (
            "", "NoExecute",
        )  # fmt: skip


class Priority(_Quiet):
    """Resolves a pod's class to its number."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "pods":
            return
        spec = w.body["spec"]
        name = spec.get("priorityClassName", "")
        value, policy = 0, "PreemptLowerPriority"
        resource = "priorityclasses.scheduling.k8s.io"
        if name:
            found = await w.api.find(resource, "", name)
            if found is None:
                raise forbidden("pods", w.name, f"no PriorityClass with name {name} was found")
            value = int(found.body.get("value", 0))
            policy = found.body.get("preemptionPolicy", policy)
        else:
            for record in (await w.api.store.range(Key.prefix(resource))).records:
                body = obj_of(record).body
                if body.get("globalDefault"):
                    name, value = body["metadata"]["name"], int(body.get("value", 0))
                    policy = body.get("preemptionPolicy", policy)
            if name:
                spec["priorityClassName"] = name
        if "priority" in spec and spec["priority"] != value:
            raise forbidden(
                "pods", w.name,
                f"the integer value of priority ({spec['priority']}) must not be provided in pod "
                f"spec; priority admission controller computed {value} from the given "
                "PriorityClass name",
            )  # fmt: skip
        spec["priority"] = value
        given = spec.get("preemptionPolicy")
        if given is not None and given != policy:
            raise forbidden(
                "pods", w.name,
                f"the string value of PreemptionPolicy ({given}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass "
                "name",
            )  # fmt: skip
        spec["preemptionPolicy"] = policy


class Escalation(_Quiet):
    """Nobody gives away rights they do not have."""

    async def check(self, w: Write) -> None:
        if w.verb in ("create", "update") and w.t.group == "rbac.authorization.k8s.io":
            old = w.old.body if w.old is not None else None
            check_escalation(w.api.authorizer, w.user, resource=w.t.resource, new=w.body, old=old)


class ClusterAddresses(_Quiet):
    """Gives every Service its cluster address, and NodePort services their ports. A set of what is
    being given right now keeps concurrent creations apart; everything else is read from the
    Services themselves, so that it survives restarts."""

    def __init__(self, cidr: str = "10.43.0.0/16", ports: range = range(30000, 32768)) -> None:
        self._network = ipaddress.ip_network(cidr)
        self._ports = ports
        self._pending: set[Any] = set()
        self._lock = asyncio.Lock()

    async def check(self, w: Write) -> None:
        if w.t.resource != "services" or w.verb not in ("create", "update") or w.subresource:
            return
        async with self._lock:
            await self._allocate(w)

    async def _allocate(self, w: Write) -> None:
        spec: Body = w.body.get("spec") or {}
        own = (w.namespace, w.name)
        services = [
            obj_of(r).body for r in (await w.api.store.range(Key.prefix("services"))).records
        ]
        others = [s for s in services if (s["metadata"]["namespace"], s["metadata"]["name"]) != own]
        self._pending = {p for p in self._pending if p[0] != own and not _stored(p, others)}
        if spec.get("type") == "ExternalName":
            return
        taken = {s["spec"].get("clusterIP") for s in others} | {p[1] for p in self._pending}
        self._address(w, spec, taken)
        if spec.get("clusterIP") not in (None, "", "None"):
            self._pending.add((own, spec["clusterIP"]))
        if spec.get("type") in ("NodePort", "LoadBalancer"):
            used = {p.get("nodePort") for s in others for p in s["spec"].get("ports") or ()}
            used |= {p[1] for p in self._pending}
            for port in self._node_ports(w, spec, used):
                self._pending.add((own, port))

    def _address(self, w: Write, spec: Body, taken: set[Any]) -> None:
        wanted = spec.get("clusterIP") or ""
        if wanted == "None":
            return
        before = (w.old.spec.get("clusterIP") or "") if w.old is not None else ""
        if not wanted:
            start = self._network.num_addresses // 256 + 1  # the low part is for fixed addresses
            free = (str(self._network[i]) for i in range(start, self._network.num_addresses - 1))
            wanted = next((a for a in free if a not in taken), "")
            if not wanted:
                raise StatusError(
                    500, "InternalError", "failed to allocate a serviceIP: range is full"
                )
        elif wanted != before:
            problem = ""
            if ipaddress.ip_address(wanted) not in self._network:
                problem = (
                    "the provided IP is not in the valid range. The range of valid IPs is "
                    f"{self._network}"
                )
            elif wanted in taken:
                problem = "provided IP is already allocated"
            if problem:
                cause = invalid_field(
                    "spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {problem}"
                )
                raise w.invalid([cause])
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]

    def _node_ports(self, w: Write, spec: Body, used: set[Any]) -> Iterable[int]:
        for i, port in enumerate(spec.get("ports") or ()):
            given = port.get("nodePort")
            if given:
                path = f"spec.ports[{i}].nodePort"
                if given not in self._ports:
                    text = (
                        "provided port is not in the valid range. The range of valid ports is "
                        f"{self._ports[0]}-{self._ports[-1]}"
                    )
                    raise w.invalid([invalid_field(path, given, text)])
                if given in used:
                    text = "provided port is already allocated"
                    raise w.invalid([invalid_field(path, given, text)])
            else:
                given = next((p for p in self._ports if p not in used), 0)
                if not given:
                    raise StatusError(500, "InternalError", "no node port is free")
                port["nodePort"] = given
            used.add(given)
            yield given


def _stored(pending: tuple[tuple[str, str], Any], services: Iterable[Body]) -> bool:
    return any((s["metadata"]["namespace"], s["metadata"]["name"]) == pending[0] for s in services)


class _Plugin(Protocol):
    async def mutate(self, w: Write) -> None: ...
    async def check(self, w: Write) -> None: ...


def builtin() -> tuple[_Plugin, ...]:
    """The plug-ins of every cluster, in their order."""
    return (
        NamespaceLifecycle(), ServiceAccounts(), DefaultTolerations(), Priority(), Escalation(),
        ClusterAddresses(),
        StorageObjectInUseProtection(), DefaultStorageClass(), PersistentVolumeClaimResize(),
        PhaseTransitions(),
    )  # fmt: skip

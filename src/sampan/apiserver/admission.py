"""Admission plug-ins: what a write gets added, and what it may not be."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sampan.api.errors import Cause, forbidden, not_found
from sampan.api.obj import Body, Key, Obj
from sampan.apiserver.authz import check_escalation
from sampan.apiserver.certificate_admission import CertificateRequests
from sampan.apiserver.ingress_admission import DefaultIngressClass
from sampan.apiserver.limit_admission import LimitRanger
from sampan.apiserver.pages import obj_of
from sampan.apiserver.quota_admission import ResourceQuota
from sampan.apiserver.runtime_class_admission import RuntimeClasses
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


class _Plugin(Protocol):
    async def mutate(self, w: Write) -> None: ...
    async def check(self, w: Write) -> None: ...


def builtin() -> tuple[_Plugin, ...]:
    """The plug-ins of every cluster, in their order."""
    return (
        NamespaceLifecycle(), LimitRanger(), ServiceAccounts(), DefaultTolerations(), Priority(),
        Escalation(),
        StorageObjectInUseProtection(), DefaultStorageClass(), PersistentVolumeClaimResize(),
        PhaseTransitions(), RuntimeClasses(), CertificateRequests(), DefaultIngressClass(),
        ResourceQuota(),
    )  # fmt: skip

"""Every active namespace has the cluster's certificate authority as ``kube-root-ca.crt``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, Update, own
from sampan.controllers.serviceaccount import is_active, namespace_of

_NAME = "kube-root-ca.crt"
_NOTE = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. No other usage is "
    "guaranteed across distributions of Kubernetes clusters."
)


class RootCaController:
    """Publishes *certificate* (PEM), and puts it right where somebody changed it."""

    name = "root-ca-cert-publisher"
    workers = 1

    def __init__(self, certificate: str) -> None:
        self._data = {"ca.crt": certificate}
        self.triggers = (own("namespaces"), Trigger("configmaps", self._changed))
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    @staticmethod
    def _changed(obj: Obj, caches: Caches) -> Iterable[Key]:
        return namespace_of(obj, caches) if obj.name == _NAME else ()

    def observe(self, key: Key, caches: Caches) -> tuple[str, Body | None] | None:
        if not is_active(caches["namespaces"].get("", key.name)):
            return None
        held = caches["configmaps"].get(key.name, _NAME)
        return key.name, held.body if held else None

    def plan(self, view: tuple[str, Body | None], now: float) -> Sequence[Action]:
        namespace, held = view
        notes = {"kubernetes.io/description": _NOTE}
        if held is None:
            meta = {"name": _NAME, "namespace": namespace, "annotations": notes}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": self._data}
            return [Create("configmaps", body)]
        if held.get("data") == self._data:
            return []
        return [Update("configmaps", {**held, "data": self._data})]

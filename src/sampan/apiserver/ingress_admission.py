"""DefaultIngressClass: an Ingress that names no class gets the default one."""

from __future__ import annotations

from sampan.api.obj import Body, Key
from sampan.api.rules import ingress
from sampan.apiserver.pages import obj_of
from sampan.apiserver.stages import Write

_CLASSES = "ingressclasses.networking.k8s.io"
_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


class DefaultIngressClass:
    """Of several default classes the newest is taken; of equally old ones the first by name."""

    async def mutate(self, w: Write) -> None:
        if w.verb != "create" or w.t.resource != "ingresses.networking.k8s.io":
            return
        spec: Body = w.body.setdefault("spec", {})
        notes = w.body["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is not None or ingress.CLASS_ANNOTATION in notes:
            return
        found = [obj_of(r) for r in (await w.api.store.range(Key.prefix(_CLASSES))).records]
        defaults = [c for c in found if c.annotations.get(_DEFAULT) == "true"]
        defaults.sort(key=lambda c: c.name)
        if defaults:
            newest = max(defaults, key=lambda c: str(c.meta.get("creationTimestamp", "")))
            spec["ingressClassName"] = newest.name

    async def check(self, w: Write) -> None:
        if w.verb == "create" and w.t.resource == "ingresses.networking.k8s.io":
            causes = ingress.validate_create(w.body)
            if causes:
                raise w.invalid(causes)

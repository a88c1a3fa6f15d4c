"""Rules of RuntimeClass (node.k8s.io/v1): how pods of a class are run, and what that costs."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import resources, selection
from sampan.api.rules.field import immutable, invalid
from sampan.api.rules.meta import check_labels
from sampan.api.rules.podspec_defaults import canonical_list
from sampan.lib import names


def default(body: Body) -> None:
    canonical_list((body.get("overhead") or {}).get("podFixed"))


def validate(body: Body) -> list[Cause]:
    handler = body.get("handler") or ""
    found = [invalid("handler", handler, p) for p in names.dns1123_label(handler)]
    fixed = (body.get("overhead") or {}).get("podFixed")
    found += resources.requirements("overhead", {"limits": fixed} if fixed else None)
    scheduling: Body = body.get("scheduling") or {}
    found += check_labels("scheduling.nodeSelector", scheduling.get("nodeSelector"))
    return found + selection.tolerations(
        "scheduling.tolerations", scheduling.get("tolerations") or []
    )


def validate_update(new: Body, old: Body) -> list[Cause]:
    return immutable("handler", new.get("handler"), old.get("handler"))

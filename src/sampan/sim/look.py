"""Plain readings of objects, for those that check what others decide."""

from __future__ import annotations

import math
from typing import Any

from sampan.api.obj import Obj

FINAL = ("Succeeded", "Failed")


def is_live(pod: Obj) -> bool:
    """Neither ended nor being deleted."""
    return not pod.is_deleting and pod.status.get("phase") not in FINAL


def is_ready(pod: Obj) -> bool:
    found = pod.status.get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


def is_finished(job: Obj) -> bool:
    found = job.status.get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in found)


def scaled(value: Any, whole: int, *, up: bool) -> int:
    """An IntOrString of a number of replicas."""
    if isinstance(value, str):
        part = int(value.rstrip("%")) * whole / 100
        return math.ceil(part) if up else math.floor(part)
    return int(value or 0)

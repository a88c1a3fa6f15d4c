"""The identities of a StatefulSet: names, ordinals, pods and the claims that go with them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sampan.api.obj import Body
from sampan.controllers import history
from sampan.controllers import pods as podlib

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"(.*)-(\d+)")


def parent_and_ordinal(pod_name: str) -> tuple[str, int]:
    """The name of the set and the ordinal a pod's name spells; ('', -1) where it spells none."""
    found = _NAME.fullmatch(pod_name)
    return (found[1], int(found[2])) if found else ("", -1)


def ordinal_of(pod: Body) -> int:
    return parent_and_ordinal(pod["metadata"]["name"])[1]


def pod_name(owner: Body, ordinal: int) -> str:
    return f"{owner['metadata']['name']}-{ordinal}"


def ordinals(owner: Body) -> range:
    """Those the set should have."""
    start = int((owner["spec"].get("ordinals") or {}).get("start", 0))
    return range(start, start + int(owner["spec"].get("replicas", 1)))


def labels_of(name: str, ordinal: int) -> dict[str, str]:
    return {POD_NAME: name, POD_INDEX: str(ordinal)}


def revision_of(pod: Body) -> str:
    """The name of the revision the pod was made of."""
    return str((pod["metadata"].get("labels") or {}).get(history.POD_HASH, ""))


def new_pod(owner: Body, template: Body, *, ordinal: int, revision: str) -> Body:
    """The pod of an ordinal, made of the template of *revision*."""
    body = podlib.from_template(owner, template, api_version="apps/v1", kind="StatefulSet")
    name = pod_name(owner, ordinal)
    meta = body["metadata"]
    meta["name"] = name
    meta["labels"] = {
        **meta.get("labels", {}), **labels_of(name, ordinal), history.POD_HASH: revision,
    }  # fmt: skip
    spec = {**body["spec"], "hostname": name}
    if owner["spec"].get("serviceName"):
        spec["subdomain"] = owner["spec"]["serviceName"]
    claims = claim_names(owner, ordinal)
    if claims:
        spec["volumes"] = [
            *({"name": volume, "persistentVolumeClaim": {"claimName": claim}}
              for volume, claim in claims.items()),
            *(v for v in spec.get("volumes") or () if v["name"] not in claims),
        ]  # fmt: skip
    return {**body, "spec": spec}


# -- claims ------------------------------------------------------------------------------------


def _templates(owner: Body) -> Iterable[Body]:
    found: list[Body] = owner["spec"].get("volumeClaimTemplates") or []
    return found


def claim_names(owner: Body, ordinal: int) -> dict[str, str]:
    """Volume name -> name of the claim, for each claim template."""
    names = [t["metadata"]["name"] for t in _templates(owner)]
    return {n: f"{n}-{owner['metadata']['name']}-{ordinal}" for n in names}


def _policy(owner: Body) -> tuple[str, str]:
    """(whenScaled, whenDeleted)."""
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenScaled", "Retain"), policy.get("whenDeleted", "Retain")


def new_claims(owner: Body, ordinal: int) -> list[Body]:
    """The claims of an ordinal, owned as the retention policy asks for."""
    selected = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    names = claim_names(owner, ordinal)
    found = []
    for template in _templates(owner):
        given = template["metadata"]
        meta: Body = {
            "name": names[given["name"]],
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(given.get("labels") or {}), **selected},
        }
        if given.get("annotations"):
            meta["annotations"] = given["annotations"]
        if refs := wanted_owners(owner, {"metadata": meta}, pod=None):
            meta["ownerReferences"] = refs
        found.append({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta,
            "spec": template.get("spec") or {},
        })  # fmt: skip
    return found


def has_foreign_controller(owner: Body, claim: Body, pod: Body | None) -> bool:
    """Whether something that is neither the set nor the pod controls the claim, so that the
    retention policy does not apply."""
    if _policy(owner) == ("Retain", "Retain"):
        return False
    return any(
        r.get("controller") and not _names(r, owner, "StatefulSet") and not _names(r, pod, "Pod")
        for r in claim["metadata"].get("ownerReferences") or ()
    )


def wanted_owners(owner: Body, claim: Body, *, pod: Body | None) -> list[Body]:
    """The owner references a claim should have. pod: where the pod is being scaled away (a claim
    that goes with scaling then goes with its pod), else None."""
    refs: list[Body] = [
        r
        for r in claim["metadata"].get("ownerReferences") or ()
        if not _names(r, owner, "StatefulSet") and not _is_pod_of(r, claim)
    ]
    if has_foreign_controller(owner, claim, pod):
        return refs
    when_scaled, when_deleted = _policy(owner)
    if pod is not None and when_scaled == "Delete":
        refs.append(podlib.owner_reference(pod, api_version="v1", kind="Pod"))
    elif when_deleted == "Delete":
        refs.append(podlib.owner_reference(owner, api_version="apps/v1", kind="StatefulSet"))
    return refs


def is_stale(owner: Body, claim: Body) -> bool:
    """Whether a claim still belongs to an earlier pod of its identity and will go with it: a new
    pod has to wait for that."""
    if _policy(owner)[0] == "Retain":
        return False
    return any(_is_pod_of(r, claim) for r in claim["metadata"].get("ownerReferences") or ())


def _is_pod_of(ref: Body, claim: Body) -> bool:
    return bool(ref.get("kind") == "Pod" and claim["metadata"]["name"].endswith(f"-{ref['name']}"))


def _names(ref: Body, target: Body | None, kind: str) -> bool:
    return target is not None and (
        ref.get("kind") == kind and ref.get("name") == target["metadata"]["name"]
    )

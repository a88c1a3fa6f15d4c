"""imagePullPolicy: whether an image must be fetched before a container is made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.lib.clock import Clock
from sampan.node.runtime.base import Image, Runtime, RuntimeFailure

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9+.-]+:[0-9a-fA-F]{32,})?"
)


@dataclass(frozen=True, slots=True)
class Fetched:
    image: Image
    pulled: bool = False
    seconds: float = 0.0


async def ensure(runtime: Runtime, ref: str, *, policy: str, clock: Clock) -> Fetched:
    """The image *ref*, present on the node. Raises RuntimeFailure (ErrImagePull,
    ErrImageNeverPull, InvalidImageName).

    An image that was loaded into the node's store satisfies Always while no registry is
    configured: loading it was the pull (docs/adr/0002-always-without-registry.md).
    """
    if not _REFERENCE.fullmatch(ref) and not ref.startswith("sha256:"):
        raise RuntimeFailure(
            "InvalidImageName",
            f'Failed to apply default image tag "{ref}": couldn\'t parse image name "{ref}": '
            "invalid reference format",
        )
    image = await runtime.image(ref)
    if image is not None:
        return Fetched(image)
    if policy == "Never":
        raise RuntimeFailure(
            "ErrImageNeverPull",
            f'Container image "{ref}" is not present with pull policy of Never',
        )
    begun = clock.now()
    try:
        image = await runtime.pull(ref)
    except RuntimeFailure as failure:
        raise RuntimeFailure("ErrImagePull", failure.message) from failure
    return Fetched(image, True, clock.now() - begun)

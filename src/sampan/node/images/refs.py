"""Names of images: short forms spelled out as every Kubernetes runtime does."""

from __future__ import annotations

import re

_REF = re.compile(
    r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9._:\-\[\]/]*?)(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[a-z0-9+.]+:[0-9a-f]{32,}))?"
)


def normalize(ref: str) -> str:
    """``nginx`` is ``docker.io/library/nginx:latest``. Raises ValueError for what is no name."""
    found = _REF.fullmatch(ref)
    if found is None or "//" in ref or ref.endswith("/"):
        raise ValueError(f'couldn\'t parse image name "{ref}": invalid reference format')
    name, tag, digest = found["name"], found["tag"], found["digest"]
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    elif first == "index.docker.io":
        name = f"docker.io/{rest}"
    repository = name.partition("/")[2]
    if repository != repository.lower():
        raise ValueError(f'couldn\'t parse image name "{ref}": repository name must be lowercase')
    if digest:
        return f"{name}@{digest}"
    return f"{name}:{tag or 'latest'}"

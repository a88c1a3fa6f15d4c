"""kubeconfig files: one for the cluster alone, and an entry in the user's own."""

from __future__ import annotations

import base64
import fcntl
import os
from pathlib import Path
from typing import Any

import yaml

Config = dict[str, Any]
_LISTS = ("clusters", "users", "contexts")


class Unreadable(Exception):
    """The user's kubeconfig is not one; it was left as it is."""


def make(name: str, server: str, *, ca: bytes, certificate: bytes, key: bytes) -> Config:
    """A kubeconfig with one context *name*; the credentials are PEM and stay inside the file."""

    def data(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    user = {"client-certificate-data": data(certificate), "client-key-data": data(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": data(ca)}}
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def user_path() -> Path:
    """Where kubectl itself would write: the first of $KUBECONFIG, or ~/.kube/config."""
    first = next((p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p), "")
    return Path(first) if first else Path.home() / ".kube" / "config"


def write(path: Path, config: Config) -> None:
    """Replace *path* at once, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        yaml.safe_dump(config, f, sort_keys=False)
    part.replace(path)


def merge(path: Path, config: Config) -> None:
    """Put *config*'s context into the file at *path* and make it the current one. Everything else
    in the file is kept. Raises Unreadable."""
    with _locked(path):
        mine = {entry["name"] for entry in config["contexts"]}
        merged = _without(_read(path), mine)
        for part in _LISTS:
            merged[part] = [*merged[part], *config[part]]
        write(path, {**merged, "current-context": config["current-context"]})


def remove(path: Path, name: str) -> None:
    """Take the context *name* out of the file again. A file that would be empty goes."""
    if not path.exists():
        return
    with _locked(path):
        left = _without(_read(path), {name})
        if left.get("current-context") == name:
            left["current-context"] = ""
        if any(left[part] for part in _LISTS):
            write(path, left)
        else:
            path.unlink()
    path.with_name(f"{path.name}.sampan-lock").unlink(missing_ok=True)


class _locked:
    """Two clusters that start at once must not lose each other's entry."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path.with_name(f"{path.name}.sampan-lock")

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _read(path: Path) -> Config:
    if not path.exists() or not path.read_text().strip():
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as e:
        raise Unreadable(f"{path} is not YAML") from e
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise Unreadable(f"{path} is not a kubeconfig")
    return config


def _without(config: Config, names: set[str]) -> Config:
    kept = {p: [e for e in config.get(p) or [] if e.get("name") not in names] for p in _LISTS}
    return {**config, **kept}

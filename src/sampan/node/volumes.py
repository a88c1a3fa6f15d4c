"""A pod's volumes, as directories of its node: made, kept up to date, taken away.

``DirectoryVolumes`` does it on disk; ``SimulatedVolumes`` pretends, for virtual worlds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.control import storage
from sampan.lib.clock import Clock, parse_rfc3339
from sampan.lib.quantity import quantity
from sampan.node.claims import ClaimFailure, Claims
from sampan.node.disks import Place
from sampan.node.environment import decode_config, decode_secret
from sampan.node.hostpath import WrongType, host_path
from sampan.node.payload import Entry, write_payload
from sampan.node.resolve import Context, pod_field, resource_field
from sampan.node.runtime.base import RuntimeFailure

REFRESH = 45.0  # seconds between looks for changes of the contents of a pod's volumes
SIZES = 10.0  # seconds between looks at how much is in volumes with a limit
CACHED = 15.0  # seconds for which pods of a node share what such a look has read


class VolumeFailure(Exception):
    """Volumes could not be made; the text is the FailedMount event's."""


class Sources(Protocol):
    """Where the contents of volumes come from: the API, as the node may read it."""

    async def config(
        self, resource: str, namespace: str, name: str, *, max_age: float = 0.0
    ) -> Body | None:
        """A config map (``configmaps``) or secret (``secrets``); None when there is none. It may
        have been read up to *max_age* seconds ago."""
        ...

    async def token(
        self, namespace: str, account: str, *, pod: Body, audience: str, seconds: int
    ) -> Body:
        """A TokenRequest with its status."""
        ...


class TmpfsSeam(Protocol):
    """Mounts in the node's mount namespace."""

    async def tmpfs(self, path: str, size: int) -> None: ...
    async def unmount(self, path: str) -> None: ...


class Volumes(Protocol):
    async def mount(self, context: Context, warn: Callable[[str], None]) -> Mapping[str, str]:
        """All volumes of the pod, by name; may be called again. Raises VolumeFailure.
        warn: told of what is done otherwise than asked for."""
        ...

    async def refresh(self, context: Context) -> float:
        """Bring contents up to date; seconds until the next time, 0 when nothing can change."""
        ...

    async def over_limit(self, pod: Body) -> str:
        """Which emptyDir volume holds more than its limit, in the kubelet's words, or ''."""
        ...

    async def unmount(self, uid: str, *, remove: bool) -> None:
        """remove: also the pod's directory."""
        ...

    def file(self, uid: str, name: str, text: str) -> str:
        """Path of a small file of the pod's own (hosts, resolv.conf), written with *text*."""
        ...

    def sub_path(self, base: str, sub: str) -> tuple[str, bool]:
        """The place of a sub path inside a volume, made a directory if absent; whether it is a
        file. Raises RuntimeFailure for one that leads outside."""
        ...

    def termination(self, uid: str, container: str, attempt: int) -> str:
        """Path of an attempt's termination log, made when absent."""
        ...

    def read_termination(self, uid: str, container: str, attempt: int) -> str: ...


# Claim, volume and its place: told of every mount, for what there is to say about its growth.
Grown = Callable[[Body, Body, Place], Awaitable[None]]


async def mount_claim(
    claims: Claims, grown: Grown | None, pod: Body, volume: Body,
    warn: Callable[[str], object] = str,
) -> str:  # fmt: skip
    """The path of a volume that stands on a claim. Raises VolumeFailure."""
    try:
        place, found = await claims.mount(pod, volume)
    except ClaimFailure as failure:
        text, name = str(failure), volume["name"]
        if not text.startswith("MountVolume"):
            text = (
                f"Unable to attach or mount volumes: unmounted volumes=[{name}], unattached "
                f"volumes=[], failed to process volumes=[{name}]: {text}"
            )
        raise VolumeFailure(text) from failure
    options = found.volume["spec"].get("mountOptions")
    if options and storage.notes_of(found.volume).get(storage.SIZE_ENFORCED) != "true":
        name = found.volume["metadata"]["name"]
        warn(f'volume "{name}" asks for {",".join(options)}; a directory has no mount options')
    if grown is not None:
        with contextlib.suppress(StatusError):  # somebody wrote the claim just now: told next time
            await grown(found.claim, found.volume, place)
    return place.path


class SimulatedVolumes:
    """Names paths and touches nothing; claims have to be bound all the same."""

    def __init__(self, claims: Claims | None = None, grown: Grown | None = None) -> None:
        self._claims = claims
        self._grown = grown

    async def mount(self, context: Context, warn: Callable[[str], None]) -> Mapping[str, str]:
        found = {}
        for volume in context.pod["spec"].get("volumes") or ():
            found[volume["name"]] = f"/volumes/{volume['name']}"
            if self._claims is not None and storage.claim_name(context.pod, volume):
                path = await mount_claim(self._claims, self._grown, context.pod, volume)
                found[volume["name"]] = path
        return found

    async def refresh(self, context: Context) -> float:
        return 0.0

    async def over_limit(self, pod: Body) -> str:
        return ""

    async def unmount(self, uid: str, *, remove: bool) -> None:
        pass

    def file(self, uid: str, name: str, text: str) -> str:
        return f"/pods/{uid}/{name}"

    def sub_path(self, base: str, sub: str) -> tuple[str, bool]:
        return f"{base}/{sub}", False

    def termination(self, uid: str, container: str, attempt: int) -> str:
        return ""

    def read_termination(self, uid: str, container: str, attempt: int) -> str:
        return ""


@dataclass(slots=True)
class _Token:
    value: str
    refresh_at: float


@dataclass(slots=True)
class _Pod:
    tokens: dict[tuple[str, str], _Token] = field(default_factory=dict)
    revisions: dict[tuple[str, str], str] = field(default_factory=dict)
    tmpfs: list[str] = field(default_factory=list)


class DirectoryVolumes:
    """Volumes under ``root/pods/<uid>``. view: the path by which this process sees what is at a
    path of the node's mount namespace."""

    def __init__(
        self,
        root: Path,
        sources: Sources,
        *,
        clock: Clock,
        node_name: str = "",
        tmpfs: TmpfsSeam | None = None,
        claims: Claims | None = None,
        grown: Grown | None = None,
        view: Callable[[str], str] = str,
    ) -> None:
        self.root = root
        self._claims = claims
        self._grown = grown
        self._view = view
        self._sources = sources
        self._clock = clock
        self._node = node_name
        self._tmpfs = tmpfs
        self._pods: dict[str, _Pod] = {}

    # ---- mounting ------------------------------------------------------------------------------

    async def mount(self, context: Context, warn: Callable[[str], None]) -> Mapping[str, str]:
        uid = context.pod["metadata"]["uid"]
        self._pods.setdefault(uid, _Pod())
        self._directory(uid).mkdir(parents=True, exist_ok=True, mode=0o750)
        found: dict[str, str] = {}
        for volume in context.pod["spec"].get("volumes") or ():
            try:
                found[volume["name"]] = await self._mount_one(context, volume, warn)
            except VolumeFailure:
                raise
            except RuntimeFailure as failure:
                raise _failed(volume, failure.message) from failure
            except OSError as error:
                raise _failed(volume, str(error)) from error
        return found

    async def _mount_one(self, context: Context, volume: Body, warn: Callable[[str], None]) -> str:
        kind = next((k for k in volume if k != "name"), "emptyDir")
        if self._claims is not None and storage.claim_name(context.pod, volume):
            return await mount_claim(self._claims, self._grown, context.pod, volume, warn)
        if kind == "hostPath":
            return _host_path(volume)
        if kind == "emptyDir":
            return await self._empty_dir(context, volume, warn)
        if kind not in _KINDS:
            raise _failed(volume, f"volumes of type {kind} are not supported by this node")
        path = self._path(context.pod["metadata"]["uid"], kind, volume["name"])
        await self._fill(context, volume, kind)
        return str(path)

    async def _empty_dir(self, context: Context, volume: Body, warn: Callable[[str], None]) -> str:
        uid = context.pod["metadata"]["uid"]
        path = self._path(uid, "emptyDir", volume["name"])
        fresh = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        source = volume.get("emptyDir") or {}
        if fresh and source.get("medium"):
            if source["medium"] == "Memory" and self._tmpfs is not None:
                limit = source.get("sizeLimit")
                await self._tmpfs.tmpfs(str(path), quantity(limit).whole if limit else 0)
                self._pods[uid].tmpfs.append(str(path))
            else:
                warn(
                    f'emptyDir volume "{volume["name"]}" asks for medium {source["medium"]}; '
                    "this node keeps it on disk"
                )
        if fresh:
            path.chmod(0o777)
            _own(path, context.pod, read_only=False)
        return str(path)

    async def _fill(self, context: Context, volume: Body, kind: str) -> None:
        uid = context.pod["metadata"]["uid"]
        path = self._path(uid, kind, volume["name"])
        entries: dict[str, Entry] = {}
        source = volume[kind] or {}
        default_mode = int(source.get("defaultMode", 0o644))
        parts = (source.get("sources") or ()) if kind == "projected" else ({kind: source},)
        for part in parts:
            for name, body in part.items():
                try:
                    maker = _CONTENT[name]
                except KeyError:
                    raise _failed(volume, f"projection of {name} is not supported") from None
                made: Mapping[str, Entry] = await maker(self, context, body, default_mode)
                entries.update(made)
        group = (context.pod["spec"].get("securityContext") or {}).get("fsGroup")
        if uid in self._pods:  # else it was unmounted while its contents were read
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
            write_payload(path, entries, stamp=self._clock.now(), group=group)

    async def _configs(
        self, context: Context, source: Body, mode: int, *, resource: str
    ) -> Mapping[str, Entry]:
        name = source.get("name") or source.get("secretName") or ""
        namespace = context.pod["metadata"].get("namespace", "")
        age = CACHED if context.refreshing else 0.0
        body = await self._sources.config(resource, namespace, name, max_age=age)
        kind = "configmap" if resource == "configmaps" else "secret"
        if body is None:
            if source.get("optional"):
                return {}
            raise RuntimeFailure("FailedMount", f'{kind} "{name}" not found')
        data = decode_secret(body) if resource == "secrets" else decode_config(body)
        items = source.get("items")
        if not items:
            return {k: Entry(v, mode) for k, v in data.items()}
        chosen: dict[str, Entry] = {}
        for item in items:
            if item["key"] not in data:
                if source.get("optional"):
                    continue
                raise RuntimeFailure(
                    "FailedMount",
                    f"references non-existent {kind.removesuffix('map')} key: {item['key']}",
                )
            chosen[item["path"]] = Entry(data[item["key"]], int(item.get("mode", mode)))
        return chosen

    async def _config_map(self, context: Context, source: Body, mode: int) -> Mapping[str, Entry]:
        return await self._configs(context, source, mode, resource="configmaps")

    async def _secret(self, context: Context, source: Body, mode: int) -> Mapping[str, Entry]:
        return await self._configs(context, source, mode, resource="secrets")

    async def _downward(self, context: Context, source: Body, mode: int) -> Mapping[str, Entry]:
        found: dict[str, Entry] = {}
        for item in source.get("items") or ():
            if item.get("fieldRef"):
                text = pod_field(context, item["fieldRef"]["fieldPath"])
            else:
                text = resource_field(context, item["resourceFieldRef"], "")
            found[item["path"]] = Entry(text.encode(), int(item.get("mode", mode)))
        return found

    async def _token(self, context: Context, source: Body, mode: int) -> Mapping[str, Entry]:
        pod = context.pod
        uid = pod["metadata"]["uid"]
        audience = source.get("audience") or ""
        kept = self._pods.get(uid, _Pod()).tokens
        known = kept.get((source["path"], audience))
        now = self._clock.now()
        if known is None or now >= known.refresh_at:
            seconds = int(source.get("expirationSeconds") or 3600)
            answer = await self._sources.token(
                pod["metadata"].get("namespace", ""),
                pod["spec"].get("serviceAccountName") or "default",
                pod=pod,
                audience=audience,
                seconds=seconds,
            )
            status = answer["status"]
            expires = parse_rfc3339(status["expirationTimestamp"])
            refresh = now + min((expires - now) * 0.8, 24 * 3600.0)
            known = _Token(status["token"], refresh)
            kept[source["path"], audience] = known
        security = pod["spec"].get("securityContext") or {}
        own = 0o640 if security.get("fsGroup") is not None else 0o644
        return {source["path"]: Entry(known.value.encode(), own)}

    # ---- keeping up to date --------------------------------------------------------------------

    async def refresh(self, context: Context) -> float:
        uid = context.pod["metadata"]["uid"]
        waits: list[float] = []
        failures: list[RuntimeFailure | StatusError] = []
        for volume in context.pod["spec"].get("volumes") or ():
            kind = next((k for k in volume if k != "name"), "emptyDir")
            if kind not in _KINDS:
                continue
            try:
                await self._fill(replace(context, refreshing=True), volume, kind)
            except (RuntimeFailure, StatusError) as failure:
                failures.append(failure)  # the others are kept up to date all the same
            waits.append(REFRESH)
        if failures:
            raise failures[0]
        now = self._clock.now()
        waits += [t.refresh_at - now for t in self._pods.get(uid, _Pod()).tokens.values()]
        return max(1.0, min(waits)) if waits else 0.0

    async def over_limit(self, pod: Body) -> str:
        for volume in pod["spec"].get("volumes") or ():
            limit = (volume.get("emptyDir") or {}).get("sizeLimit")
            if not limit or volume["emptyDir"].get("medium") == "Memory":
                continue  # the file system itself has that limit
            path = self._path(pod["metadata"]["uid"], "emptyDir", volume["name"])
            if await asyncio.to_thread(_size, path) > quantity(limit).whole:
                name = volume["name"]
                return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
        return ""

    # ---- taking away ---------------------------------------------------------------------------

    async def unmount(self, uid: str, *, remove: bool) -> None:
        kept = self._pods.pop(uid, _Pod())
        for path in kept.tmpfs:
            if self._tmpfs is not None:
                await self._tmpfs.unmount(path)
        gone = self._directory(uid) if remove else self._directory(uid) / "volumes"
        if gone.exists():
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    def known(self) -> Iterable[str]:
        """Uids of the pods that have a directory."""
        pods = self.root / "pods"
        return [p.name for p in pods.iterdir()] if pods.is_dir() else []

    # ---- files ---------------------------------------------------------------------------------

    def file(self, uid: str, name: str, text: str) -> str:
        path = self._directory(uid) / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o644)
        return str(path)

    def sub_path(self, base: str, sub: str) -> tuple[str, bool]:
        root = real_path(base, self._view)
        place = real_path(os.path.join(root, sub), self._view)
        if os.path.commonpath([root, place]) != root:
            raise RuntimeFailure(
                "CreateContainerConfigError",
                f'failed to prepare subPath for volumeMount: "{sub}" leads out of its volume',
            )
        seen = self._view(place)
        if not os.path.exists(seen):
            os.makedirs(seen, exist_ok=True)
        return place, os.path.isfile(seen)

    def termination(self, uid: str, container: str, attempt: int) -> str:
        path = self._directory(uid) / "containers" / container / str(attempt)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not path.exists():
            path.touch()
            path.chmod(0o666)
        return str(path)

    def read_termination(self, uid: str, container: str, attempt: int) -> str:
        path = self._directory(uid) / "containers" / container / str(attempt)
        with contextlib.suppress(OSError), path.open("rb") as file:
            return file.read(4096).decode("utf-8", "replace")
        return ""

    def _directory(self, uid: str) -> Path:
        return self.root / "pods" / uid

    def _path(self, uid: str, kind: str, name: str) -> Path:
        return self._directory(uid) / "volumes" / f"kubernetes.io~{kind.lower()}" / name


def _size(path: Path) -> int:
    """Bytes on disk of everything below; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(directory, name))
                seen[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


_Maker = Callable[[DirectoryVolumes, Context, Body, int], Awaitable[Mapping[str, Entry]]]
_CONTENT: dict[str, _Maker] = {
    "configMap": DirectoryVolumes._config_map,
    "secret": DirectoryVolumes._secret,
    "downwardAPI": DirectoryVolumes._downward,
    "serviceAccountToken": DirectoryVolumes._token,
}

_KINDS = ("configMap", "secret", "downwardAPI", "projected")


_LINKS = 40  # as many symbolic links as the kernel follows


def real_path(path: str, view: Callable[[str], str]) -> str:
    """*path* without symbolic links, as it is in the namespace that *view* looks into. What is not
    there is taken as written."""
    done, left, followed = "/", [p for p in path.split("/") if p], 0
    while left:
        step = left.pop(0)
        if step in (".", ".."):
            done = os.path.dirname(done) if step == ".." else done
            continue
        place = os.path.join(done, step)
        if not os.path.islink(view(place)):
            done = place
            continue
        followed += 1
        if followed > _LINKS:
            raise RuntimeFailure("CreateContainerConfigError", f"{path}: too many symbolic links")
        target = os.readlink(view(place))
        if target.startswith("/"):
            done = "/"
        left = [p for p in target.split("/") if p] + left
    return done


def _failed(volume: Body, why: str) -> VolumeFailure:
    return VolumeFailure(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}')


def _own(path: Path, pod: Body, *, read_only: bool) -> None:
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    if group is not None:
        os.chown(path, -1, int(group))
        path.chmod(0o2775 if not read_only else 0o2755)


def _host_path(volume: Body) -> str:
    try:
        return host_path(volume["hostPath"])
    except WrongType as e:
        raise _failed(volume, str(e)) from e

"""Media types: which shape a client accepts, and request bodies of the shapes it may send."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
import yaml

from sampan.api.call import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from sampan.api.errors import bad_request, not_acceptable, unsupported_media_type
from sampan.api.obj import Body
from sampan.apiserver import duplicates, protobuf

JSON, YAML = "application/json", "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
OBJECT, TABLE, PARTIAL, PARTIAL_LIST = (
    "",
    "Table",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
)
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


@lru_cache(maxsize=1024)
def accepted(accept: str, *, has_table: bool = True) -> tuple[str, str]:
    """The media type and shape (OBJECT, TABLE, PARTIAL...) to answer with: the first wish of the
    client that can be met. has_table: the kind can be shown as one. Raises StatusError 406."""
    if not accept:
        return JSON, OBJECT
    wishes: list[tuple[float, int, str, str]] = []
    for position, clause in enumerate(accept.split(",")):
        kind, *parameters = (p.strip() for p in clause.split(";"))
        values = {k.strip(): v.strip() for k, _, v in (p.partition("=") for p in parameters)}
        quality = _quality(values.get("q", "1"))
        if kind in ("*/*", "application/*", JSON):
            media = JSON
        elif kind in (YAML, "text/yaml", "application/x-yaml"):
            media = YAML
        else:
            continue
        shape = values.get("as", OBJECT)
        if shape:
            if shape not in (TABLE, PARTIAL, PARTIAL_LIST):
                continue
            if values.get("g") != "meta.k8s.io" or values.get("v") != "v1":
                continue
            if shape == TABLE and not has_table:
                continue
        if quality > 0:
            wishes.append((-quality, position, media, shape))
    if not wishes:
        raise not_acceptable(
            "only the following media types are accepted: application/json, application/yaml, "
            "application/json;as=Table;v=v1;g=meta.k8s.io, "
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        )
    _, _, media, shape = min(wishes)
    return media, shape


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


class _Loader(yaml.SafeLoader):
    """JSON's types only: no timestamps, and no aliases (they can blow up a small body)."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key.value, str):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    self.repeated.append(f'line {line}: key "{key.value}" already set in map')
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def content_type(header: str) -> str:
    """The bare media type of a Content-Type header, JSON when there is none."""
    return header.partition(";")[0].strip().lower() or JSON


def decode_object(
    media: str, data: bytes, *, kind: str, warnings: list[str], repeated: list[str]
) -> Body:
    """The body of a create or an update. Raises StatusError 400 or 415. warnings: gets a text for
    what could not be read; repeated: one for each field that is there twice."""
    if media == PROTOBUF:
        try:
            body, unread = protobuf.decode(data)
        except protobuf.ProtobufError as e:
            raise bad_request(
                f"the object provided is unrecognized (must be of type {kind}): {e}"
            ) from None
        warnings += unread
        return body
    if media not in (JSON, YAML, "text/yaml", "application/x-yaml"):
        raise unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{JSON}, {YAML}, {PROTOBUF}"
        )
    value = _parse(media, data, kind, repeated)
    if not isinstance(value, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): "
            "couldn't get version/kind; json parse error: it is no JSON object"
        )
    return value


def _parse(media: str, data: bytes, kind: str, repeated: list[str]) -> Any:
    try:
        if media == JSON:
            value = orjson.loads(data)
            repeated += duplicates.in_json(data, value)
            return value
        value = _load_yaml(data, repeated)
        return orjson.loads(orjson.dumps(value))  # what JSON cannot say is refused
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as e:
        what = "json" if media == JSON else "yaml"
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get "
            f"version/kind; {what} parse error: {e} ({data[:10].hex()} ...)"
        ) from None


def _load_yaml(data: bytes, repeated: list[str]) -> Any:
    loader = _Loader(data)
    try:
        value = loader.get_single_data()
    finally:
        loader.dispose()
    if loader.repeated:
        repeated.append("\n  ".join(["yaml: unmarshal errors:", *loader.repeated]))
    return value


def decode_patch(media: str, data: bytes, repeated: list[str]) -> Any:
    """The body of a patch. Raises StatusError 400 or 415. repeated: as of an object."""
    if media not in _PATCHES:
        raise unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(_PATCHES)
        )
    if media == APPLY_PATCH:
        return _applied(data, repeated)
    try:
        value = orjson.loads(data)
    except ValueError as e:
        raise bad_request(f"error decoding patch: {e}") from None
    if media != JSON_PATCH:
        repeated += duplicates.in_json(data, value)
    return value


def _applied(data: bytes, repeated: list[str]) -> Body:
    try:
        value = _load_yaml(data, repeated)
        value = orjson.loads(orjson.dumps(value))
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as e:
        raise bad_request(f"error decoding YAML: {e}") from None
    if not isinstance(value, dict):
        raise bad_request("error decoding YAML: an object is needed")
    found: Body = value
    return found


def to_yaml(data: bytes) -> bytes:
    """JSON bytes as YAML."""
    text: str = yaml.safe_dump(orjson.loads(data), sort_keys=False, allow_unicode=True)
    return text.encode()

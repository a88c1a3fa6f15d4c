"""Patches: what a PATCH request turns a body into."""

from __future__ import annotations

from typing import Any

from sampan.api import jsonpatch, strategic
from sampan.api.call import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from sampan.api.errors import StatusError, bad_request, unsupported_media_type
from sampan.api.obj import Body
from sampan.schema.scalars import json_type
from sampan.schema.walk import Schemas

_GO_MAP = "map[string]interface {}"


def apply_patch(
    content_type: str, *, body: Body, patch: Any, definition: str, schemas: Schemas
) -> Body:
    """The body that *patch* makes of *body*, which stays as it is (parts of both may be shared).

    definition names the schema whose patch keys a strategic patch follows. The answer is not
    decoded: unknown fields and nulls of the patch may be in it. Raises StatusError: 400 for a
    malformed patch, 422 for one that does not apply, 415 for other types.
    """
    media = content_type.partition(";")[0].strip().lower()
    try:
        return _apply(media, body, patch, definition, schemas)
    except RecursionError:
        raise bad_request("error decoding patch: exceeded max depth") from None


def _apply(media: str, body: Body, patch: Any, definition: str, schemas: Schemas) -> Body:
    if media == JSON_PATCH:
        return _json(body, patch)
    if media == MERGE_PATCH:
        if not isinstance(patch, dict):
            raise bad_request(f"error decoding patch: {_unmarshal(patch, _GO_MAP)}")
        return _merged(body, patch)
    if media == STRATEGIC_PATCH and definition in schemas:
        if not isinstance(patch, dict):
            raise bad_request(_unmarshal(patch, _GO_MAP))
        return _strategic(body, patch, definition, schemas)
    accepted = [JSON_PATCH, MERGE_PATCH]
    if definition in schemas:
        accepted.append(STRATEGIC_PATCH)
    raise unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )


def _json(body: Body, patch: Any) -> Body:
    try:
        patched = jsonpatch.apply(body, patch)
    except jsonpatch.Malformed as e:
        raise bad_request(f"error decoding patch: {e}") from None
    except jsonpatch.TooMany as e:
        raise StatusError(413, "RequestEntityTooLarge", str(e)) from None
    except jsonpatch.DoesNotApply:
        raise _does_not_apply() from None
    if not isinstance(patched, dict):
        raise _does_not_apply()
    return patched


def _merged(body: Body, patch: dict[str, Any]) -> Body:
    """RFC 7386."""
    merged = dict(body)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            old = merged.get(name)
            merged[name] = _merged(old if isinstance(old, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _strategic(body: Body, patch: dict[str, Any], definition: str, schemas: Schemas) -> Body:
    try:
        return strategic.apply(body, patch, schemas=schemas, schema=schemas.schema(definition))
    except strategic.Unsupported:
        raise _does_not_apply() from None
    except strategic.Malformed as e:
        # Upstream answers some of these with 500; a client's mistake is a 400 here.
        raise bad_request(str(e)) from None


def _unmarshal(value: Any, go: str) -> str:
    return f"json: cannot unmarshal {json_type(value)} into Go value of type {go}"


def _does_not_apply() -> StatusError:
    # The words of upstream's generic answer; clients print and match them.
    return StatusError(
        422, "Invalid", "the server rejected our request due to an error in our request"
    )

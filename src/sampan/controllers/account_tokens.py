"""Secrets of type kubernetes.io/service-account-token: a token that does not expire, the cluster's
authority and the namespace are put into them; they go with their account, and those that were made
for an account long ago and that nobody uses any more are marked and then removed.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Key, Obj
from sampan.control.facts import Facts, Mark
from sampan.control.plan import (
    Action,
    Again,
    Answer,
    Ask,
    Caches,
    Create,
    Delete,
    Patch,
    Read,
    Trigger,
    Update,
)
from sampan.lib.clock import parse_rfc3339

TOKENS, CLEANER = "tokens-controller", "legacy-service-account-token-cleaner"
TRACKER = "legacy-token-tracking-controller"  # the API server's own
TYPE = "kubernetes.io/service-account-token"
ACCOUNT, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
DAY = 86400.0
UNUSED = 365 * DAY  # seconds after which a token that nobody used is marked, and then removed
Sign = Callable[[str, str, str, str], str]  # namespace, account, its uid, secret -> token
_CLEAN = Key("configmaps", "kube-system", TRACKING)
_T = "tests/controllers/test_account_tokens.py::"
FACTS = Facts(
    kind="Service account tokens", controller=f"{TOKENS}, {CLEANER}", page="secrets",
    annotations=(
        Mark(ACCOUNT_UID, "Secret", "the uid of the account the token is of",
             f"{_T}test_a_secret_gets_its_token"),
    ),
    labels=(
        Mark(INVALID_SINCE, "Secret", "the day since which the token is refused: unused for a year",
             f"{_T}test_who_is_not_used_for_a_year_is_marked_and_then_removed"),
    ),
    reads=(
        Mark(ACCOUNT, "Secret (annotation)", "the account the token is of",
             f"{_T}test_a_secret_gets_its_token"),
        Mark(LAST_USED, "Secret (label)", "the day on which the API server last saw the token",
             f"{_T}test_what_keeps_a_token"),
    ),
)  # fmt: skip


def is_token(secret: Obj) -> bool:
    return bool(secret.body.get("type") == TYPE)


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()


@dataclass(frozen=True, slots=True)
class View:
    """A token's secret and its account (None: not there, or another by its uid). gone: the secret
    was removed; the account may still name it."""

    secret: Obj
    account: Obj | None
    gone: bool = False


def _account_of(secret: Obj) -> Key:
    return Key("serviceaccounts", secret.namespace, str(secret.annotations.get(ACCOUNT, "")))


def _index(secret: Obj) -> Iterable[str]:
    """Index: namespace and account of a token."""
    return (f"{secret.namespace}/{_account_of(secret).name}",) if is_token(secret) else ()


class AccountTokens:
    """Fills in tokens, and takes away those of accounts that are gone."""

    name = TOKENS
    workers = 1

    def __init__(self, root_ca: str, sign: Sign) -> None:
        self._ca, self._sign = _b64(root_ca), sign
        self._known: dict[Key, Obj] = {}
        self.triggers: tuple[Trigger, ...] = (
            Trigger("secrets", lambda s, _caches: (s.key,) if is_token(s) else ()),
            Trigger("serviceaccounts", self._of_account),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "secrets": {"account": _index}
        }

    @staticmethod
    def _of_account(account: Obj, caches: Caches) -> Iterable[Key]:
        found = caches["secrets"].by("account", f"{account.namespace}/{account.name}")
        return [s.key for s in found]

    def observe(self, key: Key, caches: Caches) -> View | None:
        secret = caches["secrets"].get(key.namespace, key.name)
        known = self._known.pop(key, None)
        if secret is None:
            account = _named(known, caches) if known is not None else None
            if known is None or account is None:
                return None
            return View(known, account, gone=True)
        self._known[key] = secret
        return None if secret.is_deleting else View(secret, _named(secret, caches))

    def plan(self, view: View, now: float) -> Sequence[Action]:
        secret, account = view.secret, view.account
        if view.gone:
            assert account is not None
            return _forget(account, secret.name)
        if account is None:
            name = _account_of(secret)
            # The cache may be late: only the API's own word takes a token away.
            return [Read((Ask(name.resource, name.namespace, name.name),), self._then(secret))]
        data: dict[str, str] = {**(secret.body.get("data") or {})}
        data |= {"ca.crt": self._ca}
        data.setdefault("namespace", _b64(secret.namespace))
        if not data.get("token"):
            token = self._sign(secret.namespace, account.name, account.uid, secret.name)
            data["token"] = _b64(token)
        notes = {**secret.annotations, ACCOUNT: account.name, ACCOUNT_UID: account.uid}
        if data == secret.body.get("data") and notes == secret.annotations:
            return []
        meta = {**secret.meta, "annotations": notes}
        return [Update("secrets", {**secret.body, "metadata": meta, "data": data})]

    @staticmethod
    def _then(secret: Obj) -> Callable[[Sequence[Answer]], Sequence[Action]]:
        def then(answers: Sequence[Answer]) -> Sequence[Action]:
            (answer,) = answers
            if isinstance(answer, StatusError) and answer.code != 404:
                return [Again(1.0)]
            uid = secret.annotations.get(ACCOUNT_UID)
            if isinstance(answer, Obj) and uid in (None, "", answer.uid):
                return [Again(1.0)]  # it is there after all; the cache will show it
            return [Delete(secret.key, uid=secret.uid)]

        return then


def _named(secret: Obj, caches: Caches) -> Obj | None:
    key = _account_of(secret)
    found = caches["serviceaccounts"].get(key.namespace, key.name)
    uid = secret.annotations.get(ACCOUNT_UID)
    return found if found is not None and uid in (None, "", found.uid) else None


def _forget(account: Obj, name: str) -> Sequence[Action]:
    """The account no longer names a secret that is gone."""
    held: list[Body] = account.body.get("secrets") or []
    left = [s for s in held if s.get("name") != name]
    if len(left) == len(held):
        return []
    return [Update("serviceaccounts", {**account.body, "secrets": left})]


# -- cleaning --------------------------------------------------------------------------------------


def secret_names(value: Any) -> set[str]:
    """Every secret a pod's spec names, wherever it does."""
    found: set[str] = set()
    if isinstance(value, list):
        for item in value:
            found |= secret_names(item)
    elif isinstance(value, dict):
        for key, held in value.items():
            if key in ("secretRef", "secretKeyRef", "nodePublishSecretRef") and held:
                found.add(str(held.get("name", "")))
            elif key == "secret" and isinstance(held, dict):
                found.add(str(held.get("secretName") or held.get("name") or ""))
            elif key == "secretName":
                found.add(str(held))
            elif key == "imagePullSecrets":
                found |= {str(s.get("name", "")) for s in held or ()}
            found |= secret_names(held)
    return found - {""}


class TokenTracking:
    """Tells since which day the API server notes the use of tokens, for who cleans them up."""

    name = TRACKER
    workers = 1

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            Trigger("configmaps", lambda o, _caches: (_CLEAN,) if o.key == _CLEAN else ()),
            Trigger("namespaces", lambda o, _c: (_CLEAN,) if o.name == _CLEAN.namespace else ()),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> tuple[Body | None] | None:
        """The ConfigMap where it is missing or says no day; None where all is well."""
        if caches["namespaces"].get("", key.namespace) is None:
            return None
        held = caches["configmaps"].get(key.namespace, key.name)
        if held is None:
            return (None,)
        since = (held.body.get("data") or {}).get("since", "")
        return None if _day(since) is not None else (held.body,)

    def plan(self, view: tuple[Body | None], now: float) -> Sequence[Action]:
        (held,) = view
        data = {"since": datetime.fromtimestamp(now, UTC).date().isoformat()}
        if held is not None:
            return [Update("configmaps", {**held, "data": {**(held.get("data") or {}), **data}})]
        meta = {"name": TRACKING, "namespace": _CLEAN.namespace}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        return [Create("configmaps", body)]


@dataclass(frozen=True, slots=True)
class Held:
    """All tokens, with what keeps them. since: the day since which use is tracked; used: by
    namespace, the secrets that pods name; named: uids of the secrets their accounts name."""

    tokens: tuple[Obj, ...]
    since: str
    used: Mapping[str, frozenset[str]]
    named: frozenset[str]


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


class TokenCleaner:
    """Once a day: of the tokens that accounts name (they were made for them, in older times), those
    nobody has used for a year are marked, and a year later removed."""

    name = CLEANER
    workers = 1

    def __init__(self, unused: float = UNUSED) -> None:
        self._unused = unused
        self.triggers: tuple[Trigger, ...] = (
            Trigger("configmaps", lambda o, _caches: (o.key,) if o.key == _CLEAN else ()),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            "secrets": {"account": _index}, "serviceaccounts": {}, "pods": {},
        }  # fmt: skip

    def observe(self, key: Key, caches: Caches) -> Held | None:
        tracked = caches["configmaps"].get(key.namespace, key.name)
        if tracked is None:
            return None
        tokens = tuple(s for s in caches["secrets"].list() if is_token(s))
        places = {s.namespace for s in tokens}
        used: dict[str, frozenset[str]] = {}
        for place in sorted(places):
            found: set[str] = set()
            for pod in caches["pods"].list(place):
                found |= secret_names(pod.spec)
            used[place] = frozenset(found)
        named = {
            s.uid for s in tokens
            if (account := _named(s, caches)) is not None
            and any(r.get("name") == s.name for r in account.body.get("secrets") or ())
        }  # fmt: skip
        since = str((tracked.body.get("data") or {}).get("since", ""))
        return Held(tokens, since, used, frozenset(named))

    def plan(self, view: Held, now: float) -> Sequence[Action]:
        again = Again(DAY)
        since = _day(view.since)
        if since is None:
            return [again]
        today = datetime.fromtimestamp(now, UTC).date()
        begin = datetime.combine(since + timedelta(days=1), datetime.min.time(), UTC)
        if now < begin.timestamp() + self._unused:
            return [again]
        edge = datetime.fromtimestamp(now - self._unused, UTC).date()
        actions: list[Action] = []
        for secret in sorted(view.tokens, key=lambda s: (s.namespace, s.name)):
            if not self._is_idle(secret, view, now, edge):
                continue
            marked = _day(secret.labels.get(INVALID_SINCE, ""))
            if marked is None:
                labels = {INVALID_SINCE: today.isoformat()}
                patch = {"metadata": {"uid": secret.uid, "labels": labels}}
                actions.append(Patch(secret.key, patch))
            elif marked < edge:
                actions.append(Delete(secret.key, uid=secret.uid, revision=secret.revision))
        return [*actions, again]

    def _is_idle(self, secret: Obj, view: Held, now: float, edge: date) -> bool:
        born = parse_rfc3339(secret.meta["creationTimestamp"])
        if born >= now - self._unused or secret.is_deleting or secret.uid not in view.named:
            return False
        if LAST_USED in secret.labels:
            last = _day(secret.labels[LAST_USED])
            if last is None or last >= edge:
                return False
        return secret.name not in view.used.get(secret.namespace, frozenset())

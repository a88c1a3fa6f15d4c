"""Tokens in Secrets: filled in, taken away with their account, cleaned up after a year, used."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.obj import Body, Key
from sampan.apiserver import legacy_tokens
from sampan.apiserver.authn import InvalidToken
from sampan.control.plan import Delete, Patch
from sampan.controllers.account_tokens import (
    ACCOUNT,
    ACCOUNT_UID,
    DAY,
    INVALID_SINCE,
    LAST_USED,
    TRACKING,
    TYPE,
    AccountTokens,
    TokenCleaner,
    TokenTracking,
    secret_names,
)
from sampan.lib.clock import rfc3339
from sampan.lib.loop import run_virtual
from sampan.testing.plans import PlanWorld
from sampan.testing.world import World, world


def text(encoded: str) -> str:
    return b64decode(encoded).decode()


class Tokens(PlanWorld):
    def __init__(self, controller: Any = None) -> None:
        self.controller = controller or AccountTokens("PEM", lambda *parts: "/".join(parts))
        super().__init__(self.controller)

    def account(self, name: str = "a", **more: Any) -> Key:
        self.add("serviceaccounts", {"metadata": {"name": name, "namespace": "default"}, **more})
        return Key("serviceaccounts", "default", name)

    def secret(
        self, name: str = "s", account: str = "a", *, uid: str = "", kind: str = TYPE,
        labels: dict[str, str] | None = None, data: dict[str, str] | None = None,
    ) -> Key:  # fmt: skip
        notes = {ACCOUNT: account, **({ACCOUNT_UID: uid} if uid else {})}
        meta = {"name": name, "namespace": "default", "annotations": notes, "labels": labels or {}}
        self.add("secrets", {"metadata": meta, "type": kind, "data": data or {}})
        return Key("secrets", "default", name)

    def uid(self, key: Key) -> str:
        return str(self.objects[key]["metadata"]["uid"])

    def work(self, key: Key) -> list[Any]:
        self.again = None
        return list(self.step(self.controller, key))


# -- filling in ------------------------------------------------------------------------------------


def test_a_secret_gets_its_token() -> None:
    w = Tokens()
    account, secret = w.account(), w.secret()
    w.work(secret)
    data = w.objects[secret]["data"]
    assert {k: text(v) for k, v in data.items()} == {
        "ca.crt": "PEM", "namespace": "default", "token": f"default/a/{w.uid(account)}/s",
    }  # fmt: skip
    notes = w.objects[secret]["metadata"]["annotations"]
    assert notes == {ACCOUNT: "a", ACCOUNT_UID: w.uid(account)}
    assert w.work(secret) == []


def test_what_is_there_stays_but_the_authority_is_put_right() -> None:
    w = Tokens()
    w.account()
    mine = {"token": b64encode(b"t").decode(), "namespace": b64encode(b"n").decode(),
            "ca.crt": b64encode(b"old").decode(), "extra": ""}  # fmt: skip
    secret = w.secret(data=mine)
    w.work(secret)
    data = w.objects[secret]["data"]
    assert {k: text(v) for k, v in data.items()} == {
        "token": "t", "namespace": "n", "ca.crt": "PEM", "extra": "",
    }  # fmt: skip


def test_other_secrets_are_left_alone() -> None:
    w = Tokens()
    w.account()
    other = w.secret(kind="Opaque")
    wakes = next(t for t in w.controller.triggers if t.resource == "secrets")
    assert list(wakes.keys(w["secrets"].get("default", "s"), w)) == []
    assert w.objects[other]["data"] == {}


@pytest.mark.parametrize("uid", ["", "somebody-else"])
def test_a_token_goes_with_its_account(uid: str) -> None:
    w = Tokens()
    if uid:
        w.account()
    secret = w.secret(uid=uid)
    w.work(secret)
    assert secret not in w.objects


def test_an_account_that_the_cache_does_not_show_yet_keeps_its_token() -> None:
    w = Tokens()
    account, secret = w.account(), w.secret()
    view = w.controller.observe(secret, w)
    assert view is not None
    late = type(view)(view.secret, None)
    (ask,) = w.controller.plan(late, w.now)
    assert [type(a).__name__ for a in ask.then([w["serviceaccounts"].get("default", "a")])] == [
        "Again"
    ]
    assert account in w.objects and secret in w.objects


def test_an_account_forgets_a_secret_that_is_gone() -> None:
    w = Tokens()
    account = w.account(secrets=[{"name": "s"}, {"name": "other"}])
    secret = w.secret()
    w.work(secret)
    del w.objects[secret]
    w.work(secret)
    assert w.objects[account]["secrets"] == [{"name": "other"}]
    assert w.work(secret) == []


def test_a_change_of_the_account_wakes_its_tokens() -> None:
    w = Tokens()
    account, secret = w.account(), w.secret()
    w.secret("t", "b")
    wakes = next(t for t in w.controller.triggers if t.resource == "serviceaccounts")
    assert list(wakes.keys(w["serviceaccounts"].get("default", account.name), w)) == [secret]


# -- cleaning --------------------------------------------------------------------------------------

KEY = Key("configmaps", "kube-system", TRACKING)
YEAR = 365


def cleaner(*, age: int = 2 * YEAR, tracked: int = 2 * YEAR) -> Tokens:
    """A token that its account names, so many days old, use tracked for so many."""
    w = Tokens(TokenCleaner())
    w.now = 1_800_000_000.0
    since = rfc3339(w.now - tracked * DAY)[:10]
    w.add("configmaps", {"metadata": {"name": TRACKING, "namespace": "kube-system"},
                         "data": {"since": since}})  # fmt: skip
    now, w.now = w.now, w.now - age * DAY
    w.account(secrets=[{"name": "s"}])
    w.secret()
    w.now = now
    return w


def done(w: Tokens) -> list[str]:
    return [type(a).__name__ for a in w.work(KEY) if isinstance(a, Patch | Delete)]


SECRET = Key("secrets", "default", "s")


def test_who_is_not_used_for_a_year_is_marked_and_then_removed() -> None:
    w = cleaner()
    assert done(w) == ["Patch"] and w.again == DAY
    labels = w.objects[SECRET]["metadata"]["labels"]
    assert labels == {INVALID_SINCE: rfc3339(w.now)[:10]}
    assert done(w) == []
    w.now += YEAR * DAY
    assert done(w) == []
    w.now += DAY
    (delete,) = [a for a in w.work(KEY) if isinstance(a, Delete)]
    assert delete.revision and SECRET not in w.objects


def old(w: Tokens, days: int) -> str:
    return rfc3339(w.now - days * DAY)[:10]


@pytest.mark.parametrize(
    ("used", "cleaned"),
    [(YEAR + 1, True), (YEAR, False), (1, False), (None, True), ("nonsense", False)],
)
def test_what_keeps_a_token(used: int | str | None, cleaned: bool) -> None:
    w = cleaner()
    if used is not None:
        label = used if isinstance(used, str) else old(w, used)
        w.objects[SECRET]["metadata"]["labels"] = {LAST_USED: label}
    assert done(w) == (["Patch"] if cleaned else [])


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]},
        {"imagePullSecrets": [{"name": "s"}]},
        {"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]},
        {"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]},
    ],
)
def test_a_pod_that_names_it_keeps_it(spec: Body) -> None:
    w = cleaner()
    w.add("pods", {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    assert secret_names(spec) == {"s"} and done(w) == []


def test_tokens_made_by_hand_stay() -> None:
    w = cleaner()
    w.objects[Key("serviceaccounts", "default", "a")]["secrets"] = []
    assert done(w) == []


@pytest.mark.parametrize(
    ("age", "tracked", "cleaned"),
    [(YEAR + 1, YEAR + 2, True), (YEAR - 1, 2 * YEAR, False), (2 * YEAR, YEAR, False),
     (2 * YEAR, 10, False)],
)  # fmt: skip
def test_nobody_is_judged_too_early(age: int, tracked: int, cleaned: bool) -> None:
    w = cleaner(age=age, tracked=tracked)
    assert done(w) == (["Patch"] if cleaned else [])
    assert w.again == DAY


def test_without_a_day_since_which_nothing_is_done() -> None:
    w = cleaner()
    w.objects[KEY]["data"] = {"since": "then"}
    assert done(w) == [] and w.again == DAY
    del w.objects[KEY]
    assert w.work(KEY) == []


@given(st.integers(0, 1200), st.integers(0, 1200), st.none() | st.integers(0, 1200))
def test_no_token_is_removed_within_a_year_of_anything(
    age: int, tracked: int, used: int | None
) -> None:
    w = cleaner(age=age, tracked=tracked)
    if used is not None:
        w.objects[SECRET]["metadata"]["labels"] = {LAST_USED: old(w, used)}
    if done(w):
        assert age > YEAR and tracked > YEAR and (used is None or used > YEAR)
    assert SECRET in w.objects  # marked first, whatever its age


def test_the_day_since_which_use_is_noted_is_told_and_put_right() -> None:
    w = Tokens(TokenTracking())
    assert w.work(KEY) == []  # there is no place for it yet
    w.add("namespaces", {"metadata": {"name": "kube-system", "namespace": ""}})
    w.work(KEY)
    today = {"since": rfc3339(w.now)[:10]}
    assert w.objects[KEY]["data"] == today
    w.now += DAY
    assert w.work(KEY) == []
    w.objects[KEY]["data"] = {"since": "never", "note": "mine"}
    w.work(KEY)
    assert w.objects[KEY]["data"] == {"since": rfc3339(w.now)[:10], "note": "mine"}


# -- used ------------------------------------------------------------------------------------------


def test_a_token_in_a_secret_is_a_credential_until_the_secret_goes() -> None:
    async def scenario(w: World) -> None:
        client = w.client
        await client.create("serviceaccounts", {"metadata": {"name": "robot"}}, "default")
        meta = {"name": "robot", "annotations": {ACCOUNT: "robot"}}
        await client.create("secrets", {"metadata": meta, "type": TYPE}, "default")
        async with asyncio.timeout(30):
            while not (data := (await client.get("secrets", "robot", "default")).body.get("data")):
                await asyncio.sleep(0.1)
        token = text(data["token"])
        assert text(data["namespace"]) == "default" and text(data["ca.crt"]) == "PEM"
        user, _ = await w.plane.tokens.authenticate(token)
        assert user.name == "system:serviceaccount:default:robot"
        assert "system:serviceaccounts:default" in user.groups
        seen = await client.get("secrets", "robot", "default")
        assert seen.labels[LAST_USED] == rfc3339(w.clock.now())[:10]
        await w.plane.tokens.authenticate(token)
        assert (await client.get("secrets", "robot", "default")).revision == seen.revision
        # Marked, it is refused; without the mark it holds again.
        for mark, holds in ((old_day(w), False), (None, True)):
            patch = {"metadata": {"labels": {INVALID_SINCE: mark}}}
            await client.patch("secrets", "robot", patch, "default")
            if holds:
                await w.plane.tokens.authenticate(token)
            else:
                with pytest.raises(InvalidToken, match="has been marked invalid"):
                    await w.plane.tokens.authenticate(token)
        # Another token in its place, then no account.
        other = {"data": {"token": b64encode(b"x").decode()}}
        await client.patch("secrets", "robot", other, "default")
        with pytest.raises(InvalidToken, match="does not match server's copy"):
            await w.plane.tokens.authenticate(token)
        await client.delete("serviceaccounts", "robot", "default")
        async with asyncio.timeout(30):
            while any(s.name == "robot" for s in (await client.list("secrets", "default")).items):
                await asyncio.sleep(0.1)
        with pytest.raises(InvalidToken):
            await w.plane.tokens.authenticate(token)
        tracked = await client.get("configmaps", TRACKING, "kube-system")
        assert tracked.body["data"]["since"] == rfc3339(w.clock.now())[:10]

    def old_day(w: World) -> str:
        return rfc3339(w.clock.now())[:10]

    async def main() -> None:
        async with world(nodes=0) as w:
            await scenario(w)

    run_virtual(main())


def test_claims_of_such_tokens() -> None:
    kept = legacy_tokens.Kept("ns", "a", "u", "s")
    claims = legacy_tokens.claims_of(kept)
    assert legacy_tokens.read(claims) == kept and claims["iss"] == "kubernetes/serviceaccount"
    assert "exp" not in claims
    with pytest.raises(ValueError, match="sub claim is invalid"):
        legacy_tokens.read({**claims, "sub": "system:serviceaccount:ns:other"})
    with pytest.raises(ValueError, match="missing"):
        legacy_tokens.read(legacy_tokens.claims_of(legacy_tokens.Kept("ns", "a", "u", "")))
    with pytest.raises(KeyError):
        legacy_tokens.read({"sub": "x"})

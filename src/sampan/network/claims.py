"""Who wants what of which address and port. Of several who want the same, one gets it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

Vip = tuple[str, str, int]  # address, protocol in lower case, port


class Ranked(Protocol):
    @property
    def rank(self) -> int:
        """Of several claims the lowest rank wins, then the lowest name of an owner."""
        ...


E = TypeVar("E", bound=Ranked)


class Claims(Generic[E]):
    """Claims by owner; ``entry`` tells whose counts."""

    def __init__(self) -> None:
        self._by_owner: dict[str, Mapping[Vip, E]] = {}
        self._by_vip: dict[Vip, dict[str, E]] = {}

    def put(self, owner: str, entries: Mapping[Vip, E]) -> set[Vip]:
        """What *owner* claims from now on; the addresses whose entry may be another now."""
        old = self._by_owner.get(owner, {})
        changed = {vip for vip in {*old, *entries} if old.get(vip) != entries.get(vip)}
        for vip in changed:
            claims = self._by_vip.setdefault(vip, {})
            claims.pop(owner, None)
            if vip in entries:
                claims[owner] = entries[vip]
            elif not claims:
                del self._by_vip[vip]
        if entries:
            self._by_owner[owner] = dict(entries)
        else:
            self._by_owner.pop(owner, None)
        return changed

    def winner(self, vip: Vip) -> tuple[str, E] | None:
        """Whose claim counts, and what it says."""
        claims = self._by_vip.get(vip)
        if not claims:
            return None
        return min(claims.items(), key=lambda c: (c[1].rank, c[0]))

    def entry(self, vip: Vip) -> E | None:
        winner = self.winner(vip)
        return winner[1] if winner else None

    def losers(self, vip: Vip) -> list[str]:
        """Owners whose claim of *vip* does not count."""
        winner = self.winner(vip)
        return sorted(o for o in self._by_vip.get(vip, ()) if winner and o != winner[0])

    def vips(self) -> set[Vip]:
        return {*self._by_vip}

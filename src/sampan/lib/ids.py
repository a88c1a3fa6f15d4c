"""Uids and name suffixes from a source of randomness that is an input."""

from __future__ import annotations

import random
import uuid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery's: no vowels, nothing ambiguous


class Ids:
    """Seeded in virtual worlds, by the system's entropy otherwise."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._random = source or random.Random()

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def below(self, limit: int) -> int:
        """A number from 0 to *limit* - 1."""
        return self._random.randrange(limit)

    def suffix(self, length: int = 5) -> str:
        """As appended to ``generateName``."""
        return "".join(self._random.choice(_ALPHABET) for _ in range(length))


def safe_encode(text: str) -> str:
    """apimachinery's SafeEncodeString: digits of a hash in the name alphabet."""
    return "".join(_ALPHABET[ord(c) % len(_ALPHABET)] for c in text)

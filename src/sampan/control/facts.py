"""What a controller tells the world, declared once: the code emits from these declarations and
``docs/controllers/<kind>.md`` is generated from them (see sampan.testing.controller_docs).

A controller module declares its events, conditions, labels, annotations and status fields as values
of these types and gathers them in one ``FACTS``. Each names the test that shows it, as
``tests/x/test_y.py::test_z``."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api.obj import Body
from sampan.control.plan import Emit

NORMAL, WARNING = "Normal", "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. text: the message, with ``{names}`` for what ``about`` fills in."""

    type: str
    reason: str
    text: str
    test: str

    def about(self, regarding: Body, **values: object) -> Emit:
        """The action that tells it about *regarding*."""
        return Emit(regarding, self.type, self.reason, self.text.format(**values))


@dataclass(frozen=True, slots=True)
class Condition:
    """One state of a condition: type, status, reason and message (with ``{names}``)."""

    type: str
    status: str
    reason: str
    message: str
    test: str

    def text(self, **values: object) -> str:
        return self.message.format(**values)


@dataclass(frozen=True, slots=True)
class Mark:
    """A label or an annotation. on: the kinds that carry it."""

    name: str
    on: str
    meaning: str
    test: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the status."""

    name: str
    meaning: str
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All a controller declares. definition: of the kind whose status it writes, '' where it writes
    no kind's whole status; a controller that reads marks of users lists them in *reads*. page: of
    several that share one, its name; by default each kind has its own."""

    kind: str
    definition: str = ""
    controller: str
    page: str = ""
    status: tuple[Field, ...] = ()
    conditions: tuple[Condition, ...] = ()
    events: tuple[Event, ...] = ()
    labels: tuple[Mark, ...] = ()
    annotations: tuple[Mark, ...] = ()
    taints: tuple[Mark, ...] = ()
    reads: tuple[Mark, ...] = ()

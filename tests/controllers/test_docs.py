"""docs/controllers: as the controllers declare, and as they do."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from sampan.control.facts import NORMAL, Event, Facts
from sampan.schema.walk import Schemas
from sampan.testing import controller_docs

ROOT = Path(__file__).parents[2]
DECLARED = controller_docs.declared()
by_kind = pytest.mark.parametrize("facts", DECLARED, ids=lambda f: f.kind)


@by_kind
def test_pages_are_up_to_date(facts: Facts) -> None:
    path = controller_docs.path_of(facts, ROOT / "docs")
    assert path.exists(), "run scripts/controller-docs"
    text = path.read_text()
    assert controller_docs.page(facts, text) == text, "run scripts/controller-docs"
    assert len(text.partition(controller_docs.BEGIN)[0].split()) > 40, "say what the kind does"


@by_kind
def test_every_status_field_is_declared(facts: Facts) -> None:
    status = Schemas.load().at(facts.definition, "status")
    assert {f.name for f in facts.status} == set(status.get("properties", {}))


@by_kind
def test_every_named_test_exists(facts: Facts) -> None:
    for name in controller_docs.named_tests(facts):
        path, _, test = name.partition("::")
        source = (ROOT / path).read_text()
        assert re.search(rf"^    def {test}\(|^def {test}\(", source, re.M), name


def test_no_event_is_told_that_is_not_declared() -> None:
    """Modules that declare make their events by ``Event.about`` only, of declared ones only."""
    told = {e for f in DECLARED for e in f.events}
    for module in controller_docs.modules():
        source = inspect.getsource(module)
        if "sampan.control.facts" not in source:
            continue
        calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "Emit"]
        own = {v for v in vars(module).values() if isinstance(v, Event)}
        assert own <= told, module.__name__


def test_a_page_keeps_what_is_written_by_hand() -> None:
    event = Event(NORMAL, "A", "old {x}", "tests/a.py::test_a")
    facts = Facts(kind="K", definition="d", controller="c", events=(event,))
    first = controller_docs.page(facts, "# K\n\nBy hand.\n")
    assert "| Normal | `A` | old {x} | `tests/a.py::test_a` |" in first
    changed = Facts(kind="K", definition="d", controller="c")
    second = controller_docs.page(changed, first + "\nMore.\n")
    assert second.startswith("# K\n\nBy hand.\n\n") and second.endswith("More.\n")
    assert "old {x}" not in second
    assert event.about({"metadata": {}}, x=1).message == "old 1"

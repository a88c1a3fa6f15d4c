"""docs/controllers: as the controllers declare, and as they do."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from sampan.control.facts import NORMAL, Event, Facts, Mark
from sampan.schema.walk import Schemas
from sampan.testing import controller_docs

ROOT = Path(__file__).parents[2]
DECLARED = controller_docs.declared()
by_kind = pytest.mark.parametrize("facts", DECLARED, ids=lambda f: f.kind)
PAGES = controller_docs.pages()


@pytest.mark.parametrize("group", PAGES, ids=lambda g: g[0].page or g[0].kind)
def test_pages_are_up_to_date(group: tuple[Facts, ...]) -> None:
    path = controller_docs.path_of(group, ROOT / "docs")
    assert path.exists(), "run scripts/controller-docs"
    text = path.read_text()
    assert controller_docs.page(group, text) == text, "run scripts/controller-docs"
    assert len(text.partition(controller_docs.BEGIN)[0].split()) > 40, "say what the kind does"


@by_kind
def test_every_status_field_is_declared(facts: Facts) -> None:
    if not facts.definition:
        return
    status = Schemas.load().at(facts.definition, "status")
    assert {f.name for f in facts.status} == set(status.get("properties", {}))


@by_kind
def test_every_named_test_exists(facts: Facts) -> None:
    for name in controller_docs.named_tests(facts):
        path, _, test = name.partition("::")
        source = (ROOT / path).read_text()
        assert re.search(rf"^    def {test}\(|^def {test}\(", source, re.M), name


# Every kind the controllers are asked for (issue 4), and where it is told of.
TOLD = {
    "Deployment": "deployment.md", "ReplicaSet": "replicaset.md", "StatefulSet": "statefulset.md",
    "ReplicationController": "replicationcontroller.md", "DaemonSet": "daemonset.md",
    "Job": "job.md", "CronJob": "cronjob.md", "PodDisruptionBudget": "poddisruptionbudget.md",
    "HorizontalPodAutoscaler": "horizontalpodautoscaler.md", "ResourceQuota": "resourcequota.md",
    "LimitRange": "limitrange.md", "Node": "nodes.md", "TTL": "nodes.md",
    "ttlSecondsAfterFinished": "garbage.md",
    "Certificate": "certificates.md", "Lease": "garbage.md", "finalizer": "garbage.md",
    "Service": "service.md", "EndpointSlice": "endpointslice.md", "scheduler": "scheduler.md",
}  # fmt: skip


@pytest.mark.parametrize("kind", TOLD)
def test_every_kind_has_a_page_that_names_tests(kind: str) -> None:
    text = (ROOT / "docs/controllers" / TOLD[kind]).read_text()
    assert kind.lower() in text.lower()
    assert re.search(r"`tests/[\w/]+\.py(::\w+)*`", text)


def test_every_page_of_controllers_is_found() -> None:
    """From the README, or because a controller declares it."""
    told = set(TOLD.values()) | {"README.md"}
    told |= {controller_docs.path_of(group, ROOT / "docs").name for group in PAGES}
    assert {p.name for p in (ROOT / "docs/controllers").glob("*.md")} <= told


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.stem)
def test_tests_that_pages_name_exist(page: Path) -> None:
    for name in re.findall(r"tests/[\w/]+\.py(?:::\w+)*", page.read_text()):
        path, *parts = name.split("::")
        if path == "tests/controllers/test_x.py":  # how to declare one
            continue
        assert (ROOT / path).exists(), name
        source = (ROOT / path).read_text()
        for part in parts:
            assert re.search(rf"^\s*(async )?(def|class) {part}\b", source, re.M), name


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
    first = controller_docs.page([facts], "# K\n\nBy hand.\n")
    assert "| Normal | `A` | old {x} | `tests/a.py::test_a` |" in first
    changed = Facts(kind="K", definition="d", controller="c")
    second = controller_docs.page([changed], first + "\nMore.\n")
    assert second.startswith("# K\n\nBy hand.\n\n") and second.endswith("More.\n")
    assert "old {x}" not in second
    assert event.about({"metadata": {}}, x=1).message == "old 1"


def test_several_may_share_a_page() -> None:
    one = Facts(kind="One", controller="a", page="p", taints=(Mark("t", "Node", "why", "x"),))
    two = Facts(kind="Two", controller="b", page="p")
    text = controller_docs.page([one, two], "")
    assert text.startswith("# p\n") and "## One\n" in text and "## Two\n" in text
    assert "### Taints it gives and takes\n" in text and "| `t` | Node | why | `x` |" in text
    assert controller_docs.page([one, two], text) == text
    assert [[f.kind for f in g] for g in PAGES if g[0].page == "nodes"] == [
        ["Node lifecycle", "Pod garbage collection", "TTL", "Taint eviction"]
    ]

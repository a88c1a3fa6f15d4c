"""Scenarios: read with every mistake named, played in virtual time, told in a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sampan.__main__ import _simulate
from sampan.cli.main import main
from sampan.sim import report, scenario
from sampan.sim.faults import Faults

EXAMPLES = Path(__file__).parents[2] / "examples/scenarios"
POD = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "not YAML"),
        ("- 1", "a scenario is a mapping"),
        ("nodes: 1", "duration: required"),
        ("duration: soon", "duration: 'soon' is not a duration"),
        ("{duration: 1m, typo: 1}", "typo: unknown (known here: name, seed"),
        ("{duration: 1m, seed: x}", "seed: 'x' is not a whole number"),
        ("{duration: 1m, nodes: [{}]}", "nodes[0].name: required"),
        ("{duration: 1m, nodes: [{name: a, size: 1}]}", "nodes[0].size: unknown"),
        ("{duration: 1m, faults: {typo: 1}}", "faults.typo: unknown fault"),
        ("{duration: 1m, faults: 1}", "faults: a mapping is needed"),
        ("{duration: 1m, containers: {a: jump=1}}", "containers.a: unknown behaviour 'jump'"),
        ("{duration: 1m, containers: []}", None),
        ("{duration: 1m, steps: 1}", "steps: a list is needed"),
        ("{duration: 1m, steps: [{kill: x}]}", "steps[0].at: required"),
        ("{duration: 1m, steps: [{at: 1s}]}", "steps[0]: does nothing"),
        ("{duration: 1m, steps: [{at: 1s, fly: x}]}", "steps[0].fly: unknown"),
        ("{duration: 1m, steps: [{at: 1h, kill: x}]}", "comes after the end"),
        ("{duration: 1m, steps: [{at: 1s, apply: no.yaml}]}", "steps[0].apply: no.yaml: "),
        ("{duration: 1m, steps: [{at: 1s, apply: {a: 1}}]}", "an object without kind"),
        ("{duration: 1m, steps: [{at: 1s, delete: web}]}", "'web' is not resource/name"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {pods: 1}}]}", "metrics[0].metric: required"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a}}]}", "one of pods, object and"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a, pods: 1, external: 1}}]}",
         "one of pods, object and external is needed"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a, pods: {p: many}}}]}",
         "metrics[0]: 'many' is not a number"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a, object: x, value: 1}}]}",
         "'x' is not resource/name"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a, object: a/b}}]}",
         "None is not a number"),
        ("{duration: 1m, steps: [{at: 1s, metrics: {metric: a, external: 1, label: 1}}]}",
         "metrics[0].label: unknown"),
        ("{duration: 1m, steps: [{at: 1s, scale: {a/b: x}}]}", "'x' is not a whole number"),
        ("{duration: 1m, steps: [{at: 1s, load: x}]}", "a mapping of objects to cores"),
        ("{duration: 1m, steps: [{at: 1s, load: {a/b: -1}}]}", "-1 is not a number of cores"),
        ("{duration: 1m, expect: [{object: a/b, is: 1}]}", "expect[0].field: required"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_runs(
    tmp_path: Path, text: str, problem: str | None
) -> None:
    path = written(tmp_path, text)
    if problem is None:
        assert scenario.read(path).containers == {}
        return
    with pytest.raises(scenario.BadScenario) as e:
        scenario.read(path)
    assert problem in str(e.value)


def test_all_of_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD)
    read = scenario.read(written(tmp_path, """
        name: all
        seed: 4
        nodes: [{name: a, labels: {zone: x}}]
        duration: 1h30m
        faults: {error: 0.5}
        containers: {i: "run=1"}
        steps:
        - {at: 10m, delete: pods/p, jump-clock: -30s}
        - {at: 1s, apply: pod.yaml}
        - {at: 2s, scale: {replicasets.apps/ns/web: 2}}
        expect: [{object: pods/p, field: status.phase, is: Running}]
    """))  # fmt: skip
    assert (read.name, read.seed, read.duration) == ("all", 4, 5400.0)
    assert read.faults == Faults(error=0.5)
    assert [(s.at, s.what) for s in read.steps] == [
        (1.0, "apply"), (2.0, "scale"), (600.0, "delete"), (600.0, "jump-clock"),
    ]  # fmt: skip
    assert read.steps[0].value[0]["kind"] == "Pod"
    assert read.steps[1].value == {("replicasets.apps", "ns", "web"): 2}
    assert read.steps[3].value == -30.0


def played(tmp_path: Path, text: str, **more: Any) -> scenario.Run:
    return scenario.play(scenario.read(written(tmp_path, text)), **more)


def test_phases_events_and_expectations_are_told(tmp_path: Path) -> None:
    run = played(
        tmp_path,
        f"""
        duration: 10m
        containers: {{i: "run=60,exit=0"}}
        steps:
        - at: 1m
          apply: [{POD.replace("spec: {", "spec: {restartPolicy: Never, ")}]
        - {{at: 5m, delete: pods/p}}
        - {{at: 6m, delete: pods/p}}
        expect:
        - {{object: pods/p, field: status.phase, is: Running}}
        - {{object: nodes/node-1, field: kind, is: Node}}
        - {{object: nodes/node-1, field: spec.nothing, is: 1}}
    """,
    )
    assert report.counts_at(run, 30.0)["Running"] == 0
    assert report.counts_at(run, 90.0)["Running"] == 1
    assert report.counts_at(run, 200.0)["Succeeded"] == 1
    assert sum(report.counts_at(run, 599.0).values()) == 0
    assert run.events[("Normal", "Pod", "Started")] == 1
    assert run.unmet == [
        'pods/default/p: pods "p" not found',
        "nodes/default/node-1: spec.nothing is None, not 1",
    ]
    assert [what for _, what in run.told] == [
        "apply pods/p", "delete pods/p", 'delete refused: pods "p" not found',
    ]  # fmt: skip


def test_every_action_does_something(tmp_path: Path) -> None:
    run = played(
        tmp_path,
        """
        duration: 20m
        nodes: 2
        steps:
        - at: 0s
          apply:
            apiVersion: apps/v1
            kind: ReplicaSet
            metadata: {name: web}
            spec:
              replicas: 2
              selector: {matchLabels: {app: web}}
              template:
                metadata: {labels: {app: web}}
                spec: {containers: [{name: c, image: i}]}
        - {at: 1m, scale: {replicasets.apps/web: 4}, kill: control-plane}
        - {at: 2m, lose-node: node-1, power: true, containers: {i: "start_delay=3"}}
        - {at: 3m, return-node: node-1, faults: {error: 0.1}}
        - {at: 4m, kill: node-2, jump-clock: 1h}
        - {at: 5m, patch: {replicasets.apps/web: {metadata: {labels: {a: b}}}}, faults: {}}
        - {at: 6m, lose-node: node-9}
        expect:
        - {object: replicasets.apps/web, field: status.readyReplicas, is: 4}
        - {object: replicasets.apps/web, field: metadata.labels, is: {a: b}}
    """,
    )
    assert run.unmet == [] and run.violations == []
    assert run.deaths == 3
    assert run.told[-1][1] == 'lose-node refused: nodes "node-9" not found'


def test_a_node_is_drained_and_a_load_is_shared(tmp_path: Path) -> None:
    run = played(
        tmp_path,
        """
        duration: 10m
        nodes: 2
        steps:
        - at: 0s
          apply:
          - apiVersion: apps/v1
            kind: ReplicaSet
            metadata: {name: web}
            spec:
              replicas: 3
              selector: {matchLabels: {app: web}}
              template:
                metadata: {labels: {app: web}}
                spec: {containers: [{name: c, image: i, resources: {requests: {cpu: "1"}}}]}
          - apiVersion: policy/v1
            kind: PodDisruptionBudget
            metadata: {name: web}
            spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
          - apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata: {name: web}
            spec:
              scaleTargetRef: {apiVersion: apps/v1, kind: ReplicaSet, name: web}
              minReplicas: 3
              maxReplicas: 6
        - {at: 1m, drain: node-1}
        - {at: 2m, load: {replicasets.apps/web: 4}}
        - {at: 8m, uncordon: node-1}
        - {at: 9m, drain: node-9}
        expect:
        - {object: replicasets.apps/web, field: status.readyReplicas, is: 5}
        - {object: nodes/node-1, field: spec.unschedulable, is: null}
    """,
    )
    assert run.unmet == [] and run.violations == []
    assert [text for _, text in run.told if "refused" in text] == [
        'drain refused: nodes "node-9" not found'
    ]


def test_the_seed_decides(tmp_path: Path) -> None:
    text = f"{{duration: 5m, faults: {{error: 0.2}}, steps: [{{at: 0s, apply: [{POD}]}}]}}"
    first, again = played(tmp_path, text), played(tmp_path, text)
    assert first.digest == again.digest
    assert played(tmp_path, text, seed=9).digest != first.digest


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_examples_come_out_as_they_say(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", str(path), "--output", str(tmp_path)]
    assert main(command, simulate=_simulate) == 0
    told = capsys.readouterr().out
    assert told == (tmp_path / "report.txt").read_text()
    assert re.search(r"^ +\d+ +Normal +Pod +Started$", told, re.M)
    plot = ElementTree.parse(tmp_path / "pods.svg").getroot()
    shapes = [e for e in plot if e.tag.endswith("polygon")]
    assert len(shapes) >= 2
    for shape in shapes:
        points = [tuple(map(float, p.split(","))) for p in shape.attrib["points"].split()]
        assert all(0 <= x <= 900 and 0 <= y <= 320 for x, y in points)


@pytest.mark.parametrize(
    ("text", "code"),
    [("{duration: 1m}", 0), ("{duration: 1m, expect: [{object: a/b, field: x, is: 1}]}", 1),
     ("{}", 2)],
)  # fmt: skip
def test_the_exit_code_tells(
    tmp_path: Path, text: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, text)
    assert main(["simulate", str(path)], simulate=_simulate) == code
    if code == 2:
        told = capsys.readouterr().err
        assert told == f"sampan: {path}: duration: required\n"
    assert main(["simulate", str(tmp_path / "none.yaml")], simulate=_simulate) == 2

"""KubeSchedulerConfiguration: read, refused by name, and what each setting changes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.obj import Body, Obj
from sampan.app import scheduling
from sampan.client.cache import Caches
from sampan.lib.clock import RealClock
from sampan.lib.selectors import Selector, from_labels
from sampan.scheduler.cycle import Cycle, NoFit
from sampan.scheduler.framework import PodInfo, Profile, Scoring
from sampan.scheduler.plugins import KNOWN, Means, default_profile, profile_of, read_settings
from sampan.scheduler.plugins.node_resources import (
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
    is_extended,
    least_allocated,
    most_allocated,
    ratio,
    strategy,
)
from sampan.scheduler.plugins.pod_topology_spread import PodTopologySpread
from sampan.scheduler.queue import SchedulingQueue
from sampan.scheduler.scheduler import Scheduler
from sampan.scheduler.settings import (
    PHASES,
    Configuration,
    Fit,
    Settings,
    SettingsError,
)
from sampan.scheduler.snapshot import Snapshot
from sampan.testing.api import api_server, client_of
from sampan.testing.placement import HOSTNAME, PREFERRED, REQUIRED, ZONE, NoCaches, node, pod, term

HEAD: Body = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}


def settings(profile: Body, **more: Any) -> Settings:
    (found,) = read_settings({**HEAD, **more, "profiles": [profile]}).profiles
    return found


def args(plugin: str, given: Body) -> Settings:
    return settings({"pluginConfig": [{"name": plugin, "args": given}]})


def made(one: Settings) -> Profile:
    nobody: Any = None
    empty: Any = NoCaches()
    return profile_of(Means(nobody, empty, RealClock(), random.Random(1), ()), one)


def decide(p: Obj, nodes: list[Obj], placed: list[Obj], one: Settings) -> str:
    view = Snapshot()
    for n in nodes:
        view.set_node(n)
    for other in placed:
        view.place(PodInfo.of(other), other.spec["nodeName"])
    found = Cycle(view, made(one), random.Random(1)).decide(PodInfo.of(p))
    return found.message() if isinstance(found, NoFit) else found


# -- reading ---------------------------------------------------------------------------------------


def test_nothing_said_is_the_default() -> None:
    assert read_settings(HEAD) == Configuration()
    assert read_settings({**HEAD, "leaderElection": {"leaderElect": True}}) == Configuration()
    whole: list[str] = [p.name for p in made(Settings()).filters]
    nobody: Any = None
    empty: Any = NoCaches()
    default = default_profile(Means(nobody, empty, RealClock(), random.Random(1), ()))
    assert whole == [p.name for p in default.filters]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "apiVersion: must be kubescheduler.config.k8s.io/v1"),
        ([], "apiVersion: must be kubescheduler.config.k8s.io/v1"),
        ({**HEAD, "kind": "Policy"}, "kind: must be KubeSchedulerConfiguration"),
        ({**HEAD, "extenders": [{"urlPrefix": "http://x"}]}, "extenders: not supported"),
        ({**HEAD, "podInitialBackoffSeconds": 0},
         "podInitialBackoffSeconds: Invalid value: 0: must be at least 1"),
        ({**HEAD, "podInitialBackoffSeconds": 20},
         "podMaxBackoffSeconds: must be greater than or equal to PodInitialBackoffSeconds"),
        ({**HEAD, "percentageOfNodesToScore": 101},
         "percentageOfNodesToScore: Invalid value: 101: must be in the range [0, 100]"),
        ({**HEAD, "percentageOfNodesToScore": True},
         "percentageOfNodesToScore: must be an integer"),
        ({**HEAD, "profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]},
         'profiles[1].schedulerName: Duplicate value: "a"'),
        ({**HEAD, "profiles": [{"plugins": {"score": {"enabled": [{"name": "Nope"}]}}}]},
         'profiles[0].plugins.score.enabled: Invalid value: "Nope": no such plug-in'),
        ({**HEAD, "profiles": [{"plugins": {"score": {"enabled": [{"name": "NodePorts"}]}}}]},
         'profiles[0].plugins.score.enabled: Invalid value: "NodePorts": no such plug-in'),
        ({**HEAD, "profiles": [{"plugins": {"sore": {}}}]},
         "profiles[0].plugins.sore: no such extension point"),
        ({**HEAD, "profiles": [{"pluginConfig": [{"name": "Nope"}]}]},
         'profiles[0].pluginConfig[0]: Invalid value: "Nope": no such plug-in'),
    ],
)  # fmt: skip
def test_what_is_refused(body: Any, told: str) -> None:
    with pytest.raises(SettingsError) as e:
        read_settings(body)
    assert str(e.value) == told


@pytest.mark.parametrize(
    ("plugin", "given", "told"),
    [
        ("NodeResourcesFit", {"scoringStrategy": {"type": "X"}},
         '.scoringStrategy.type: Unsupported value: "X": supported values: "LeastAllocated", '
         '"MostAllocated", "RequestedToCapacityRatio"'),
        ("NodeResourcesFit", {"scoringStrategy": {"resources": [{"name": "cpu", "weight": 101}]}},
         ".scoringStrategy.resources[0].weight: Invalid value: 101: must be in the range [1, 100]"),
        ("NodeResourcesFit", {"scoringStrategy": {"type": "RequestedToCapacityRatio"}},
         ".scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must "
         "be specified"),
        ("NodeResourcesFit", {"scoringStrategy": {"type": "RequestedToCapacityRatio",
         "requestedToCapacityRatio": {"shape": [{"utilization": 50, "score": 1},
                                                {"utilization": 50, "score": 2}]}}},
         ".scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 50: "
         "utilization values must be sorted in increasing order"),
        ("NodeResourcesFit", {"scoringStrategy": {"type": "RequestedToCapacityRatio",
         "requestedToCapacityRatio": {"shape": [{"utilization": 50, "score": 11}]}}},
         ".scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: must be in "
         "the range [0, 10]"),
        ("NodeResourcesBalancedAllocation", {"resources": [{"name": "cpu", "weight": 2}]},
         ".resources[0].weight: Invalid value: 2: must be in the range [1, 1]"),
        ("InterPodAffinity", {"hardPodAffinityWeight": 101},
         ".hardPodAffinityWeight: Invalid value: 101: must be in the range [0, 100]"),
        ("PodTopologySpread", {"defaultingType": "Some"},
         '.defaultingType: Unsupported value: "Some": supported values: "List", "System"'),
        ("PodTopologySpread", {"defaultConstraints": [{"topologyKey": ZONE, "maxSkew": 1}]},
         ".defaultingType: Invalid value: System: when .defaultConstraints are not empty"),
        ("PodTopologySpread", {"defaultingType": "List", "defaultConstraints": [{"maxSkew": 1}]},
         ".defaultConstraints[0].topologyKey: Required value: can not be empty"),
        ("PodTopologySpread", {"defaultingType": "List",
                               "defaultConstraints": [{"topologyKey": ZONE}]},
         ".defaultConstraints[0].maxSkew: Required value"),
        ("PodTopologySpread", {"defaultingType": "List", "defaultConstraints": [
            {"topologyKey": ZONE, "maxSkew": 1, "labelSelector": {"matchLabels": {"a": "b"}}}]},
         ".defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, "
         "as they deduced for each pod"),
        ("DefaultPreemption", {"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0},
         ": both minCandidateNodesPercentage and minCandidateNodesAbsolute cannot be zero"),
        ("VolumeBinding", {"bindTimeoutSeconds": -1},
         ".bindTimeoutSeconds: Invalid value: -1: must be at least 0"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(plugin: str, given: Body, told: str) -> None:
    with pytest.raises(SettingsError) as e:
        args(plugin, given)
    assert str(e.value) == f"profiles[0].pluginConfig[0].args{told}"


def test_known_plugins_are_those_there_are() -> None:
    whole = made(Settings())
    volumes = {"VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone"}
    for phase in sorted(set(PHASES.values())):
        names = {p.name for p in getattr(whole, phase)}
        assert names == KNOWN[phase] - volumes, phase


# -- which plug-ins --------------------------------------------------------------------------------


def names(one: Settings, phase: str) -> list[str]:
    return [p.name for p in getattr(made(one), phase)]


def test_plugins_are_left_out_and_put_back() -> None:
    off = settings({"plugins": {"score": {"disabled": [{"name": "ImageLocality"}]},
                                "preFilter": {"disabled": [{"name": "NodePorts"}]},
                                "postFilter": {"disabled": [{"name": "*"}]},
                                "queueSort": {"enabled": [{"name": "PrioritySort"}]}}})  # fmt: skip
    assert "ImageLocality" not in names(off, "scores") and len(names(off, "scores")) == 6
    assert "NodePorts" not in names(off, "filters") and names(off, "post_filters") == []
    enabled = [{"name": "NodeAffinity", "weight": 7}, {"name": "ImageLocality"}]
    only = settings({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": enabled}}})
    assert names(only, "scores") == ["NodeAffinity", "ImageLocality"]
    assert made(only).weights == {"NodeAffinity": 7, "ImageLocality": 1}
    everywhere = settings({"plugins": {"multiPoint": {"disabled": [{"name": "TaintToleration"}]}}})
    assert "TaintToleration" not in names(everywhere, "filters")
    assert "TaintToleration" not in names(everywhere, "scores")
    heavier = settings({"plugins": {"multiPoint": {
        "enabled": [{"name": "NodeAffinity", "weight": 9}]}}})  # fmt: skip
    assert names(heavier, "scores") == names(Settings(), "scores")
    assert made(heavier).weights == {"NodeAffinity": 9}


def test_weights_decide() -> None:
    nodes = [node("near", labels={HOSTNAME: "near", ZONE: "z"}), node("empty")]
    wish = {"weight": 1, "preference": {"matchExpressions": [{"key": ZONE, "operator": "Exists"}]}}
    p = pod("p", cpu="100m", affinity={"nodeAffinity": {PREFERRED: [wish]}})
    full = [pod("x", cpu="1500m", memory="3Gi", on="near")]
    assert decide(p, nodes, full, Settings()) == "near"
    enabled = [{"name": "NodeAffinity", "weight": 1}, {"name": "NodeResourcesFit", "weight": 3}]
    light = settings({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": enabled}}})
    assert decide(p, nodes, full, light) == "empty"


# -- scoring strategies ----------------------------------------------------------------------------


def fit_score(fit: Fit, p: Obj, n: Obj, *placed: Obj) -> int:
    view = Snapshot()
    view.set_node(n)
    for other in placed:
        view.place(PodInfo.of(other), n.name)
    return strategy(fit, PodInfo.of(p))(view.nodes[n.name])


def test_figures_of_one_resource() -> None:
    assert [least_allocated(u, 4) for u in (0, 1, 4, 5)] == [100, 75, 0, 0]
    assert [most_allocated(u, 4) for u in (0, 1, 4, 5)] == [0, 25, 100, 100]
    shape = ((0, 100), (50, 20), (100, 0))
    assert [ratio(shape, u) for u in (0, 25, 49, 50, 75, 99, 100)] == [100, 60, 22, 20, 10, 1, 0]
    assert [ratio(((30, 40), (60, 70)), u) for u in (0, 30, 31, 45, 60, 100)] == [
        40, 40, 41, 55, 70, 70,
    ]  # fmt: skip


FOUR = node("a", cpu="4", memory="4Gi", more={"example.com/gpu": "2"})
HALF = pod("p", cpu="2", memory="1Gi")


@pytest.mark.parametrize(
    ("fit", "p", "points"),
    [
        (Fit("MostAllocated"), HALF, (50 + 25) // 2),
        (Fit("MostAllocated", (("cpu", 3), ("memory", 1))), HALF, (150 + 25) // 4),
        (Fit("LeastAllocated", (("cpu", 3), ("memory", 1))), HALF, (150 + 75) // 4),
        # Who does not ask for an extended resource does not care how much of it is left.
        (Fit("LeastAllocated", (("example.com/gpu", 1), ("cpu", 1))), HALF, 50),
        (Fit("LeastAllocated", (("example.com/gpu", 1), ("cpu", 1))),
         pod("p", cpu="1", requests={"example.com/gpu": "2"}), 37),
        (Fit("MostAllocated", (("example.com/absent", 1),)), HALF, 0),
        (Fit("RequestedToCapacityRatio", shape=((0, 0), (100, 100))), HALF, 38),
        # Scores of nothing do not count for the mean.
        (Fit("RequestedToCapacityRatio", shape=((0, 0), (25, 0), (75, 100))), HALF, 50),
        (Fit("RequestedToCapacityRatio", shape=((0, 100), (100, 0))), pod("p", cpu="9"), 96),
    ],
)  # fmt: skip
def test_strategies(fit: Fit, p: Obj, points: int) -> None:
    assert fit_score(fit, p, FOUR) == points


amounts = st.integers(0, 6000)


@given(amounts, amounts, st.integers(0, 4), st.integers(0, 8), st.booleans())
def test_the_fast_least_allocated_is_the_plain_one(
    cpu: int, used: int, have_cpu: int, have_memory: int, is_silent: bool
) -> None:
    n = node("a", cpu=str(have_cpu), memory=f"{have_memory}Gi")
    p = pod("p") if is_silent else pod("p", cpu=f"{cpu}m", memory=f"{cpu}Mi")
    held = pod("x", cpu=f"{used}m", memory=f"{used}Mi")
    view = Snapshot()
    view.set_node(n)
    view.place(PodInfo.of(held), "a")
    scoring = NodeResourcesFit().prepare_score(PodInfo.of(p), view)
    assert isinstance(scoring, Scoring) and scoring.score is not None
    assert scoring.score(view.nodes["a"]) == fit_score(Fit(), p, n, held)


@given(amounts, amounts, amounts, amounts)
def test_the_fast_balance_is_the_plain_one(a: int, b: int, c: int, d: int) -> None:
    view = Snapshot()
    view.set_node(node("a", cpu="4", memory="4Gi"))
    view.place(PodInfo.of(pod("x", cpu=f"{c}m", memory=f"{d}Mi")), "a")
    p = PodInfo.of(pod("p", cpu=f"{a}m", memory=f"{b}Mi"))
    plain = NodeResourcesBalancedAllocation((("memory", 1), ("cpu", 1)))
    found = [x.prepare_score(p, view) for x in (NodeResourcesBalancedAllocation(), plain)]
    told = [
        f.score(view.nodes["a"]) if isinstance(f, Scoring) and f.score is not None else None
        for f in found
    ]
    assert told[0] == told[1]


def test_balance_over_three_resources() -> None:
    three = NodeResourcesBalancedAllocation((("cpu", 1), ("memory", 1), ("example.com/gpu", 1)))
    view = Snapshot()
    view.set_node(FOUR)
    p = PodInfo.of(pod("p", cpu="4", requests={"example.com/gpu": "1"}))
    scoring = three.prepare_score(p, view)
    assert isinstance(scoring, Scoring) and scoring.score is not None
    # Parts 1, 0 and 1/2: a deviation of 0.408, after all were alike.
    assert scoring.score(view.nodes["a"]) == 50 + int((50 + 59 - 100) / 2)


def test_ignored_resources_are_not_counted() -> None:
    p = pod("p", requests={"example.com/gpu": "1", "other.io/x": "1"})
    some = args("NodeResourcesFit", {"ignoredResources": ["example.com/gpu"]})
    told = "0/1 nodes are available: 1 Insufficient other.io/x."
    assert decide(p, [node("a")], [], some) == told
    both = args("NodeResourcesFit", {"ignoredResourceGroups": ["example.com", "other.io"]})
    assert decide(p, [node("a")], [], both) == "a"
    native = args("NodeResourcesFit", {"ignoredResources": ["cpu"]})
    assert "Insufficient cpu" in decide(pod("p", cpu="9"), [node("a")], [], native)
    assert is_extended("a.b/c") and not is_extended("cpu")
    assert not is_extended("kubernetes.io/x")


def test_bin_packing() -> None:
    nodes = [node("a", cpu="4"), node("b", cpu="4")]
    full = [pod("x", cpu="2", memory="2Gi", on="b")]
    pack = args("NodeResourcesFit", {"scoringStrategy": {"type": "MostAllocated"}})
    only = {"plugins": {"score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}}}
    assert decide(pod("p", cpu="1", memory="1Gi"), nodes, full, pack) == "b"
    assert decide(pod("p", cpu="1", memory="1Gi"), nodes, full, settings(only)) == "a"


# -- the other arguments ---------------------------------------------------------------------------


def test_hard_affinity_of_others_weighs_as_told() -> None:
    nodes = [node("a", labels={HOSTNAME: "a"}), node("b", labels={HOSTNAME: "b"})]
    near = {"podAffinity": {REQUIRED: [term(HOSTNAME, app="w")]}}
    there = [pod("x", labels={"app": "w"}, affinity=near, cpu="1500m", memory="3Gi", on="b")]
    p = pod("p", labels={"app": "w"}, cpu="100m", memory="100Mi")
    assert decide(p, nodes, there, Settings()) == "b"
    none = args("InterPodAffinity", {"hardPodAffinityWeight": 0})
    assert decide(p, nodes, there, none) == "a"
    deaf = args("InterPodAffinity", {"ignorePreferredTermsOfExistingPods": True})
    assert decide(p, nodes, there, deaf) == "a"
    wishes = {"podAffinity": {PREFERRED: [
        {"weight": 1, "podAffinityTerm": term(HOSTNAME, app="nobody")}]}}  # fmt: skip
    wishing = pod("p", labels={"app": "w"}, cpu="100m", memory="100Mi", affinity=wishes)
    assert decide(wishing, nodes, there, deaf) == "b"


def test_added_affinity_holds_for_every_pod() -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": ZONE, "operator": "In", "values": ["z"]}]}]}  # fmt: skip
    one = args("NodeAffinity", {"addedAffinity": {REQUIRED: terms}})
    nodes = [node("a"), node("b", labels={ZONE: "z"})]
    assert decide(pod("p"), nodes, [], one) == "b"
    assert decide(pod("p"), nodes[:1], [], one) == (
        "0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity."
    )
    both = decide(pod("p", nodeSelector={"x": "y"}), nodes[1:], [], one)
    assert both == "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    wish = {"weight": 5, "preference": terms["nodeSelectorTerms"][0]}
    soft = args("NodeAffinity", {"addedAffinity": {PREFERRED: [wish]}})
    assert decide(pod("p"), nodes, [], soft) == "b"


class Kin:
    """Everything with these labels."""

    def __init__(self, labels: dict[str, str] | None) -> None:
        self.labels = labels
        self.number = 0

    def version(self) -> int:
        return self.number

    def selector(self, _pod: PodInfo) -> Selector | None:
        return None if self.labels is None else from_labels(self.labels)


def test_default_constraints_of_a_list() -> None:
    rules = [{"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    one = args("PodTopologySpread", {"defaultingType": "List", "defaultConstraints": rules})
    assert one.defaults == tuple(rules)
    nodes = [node("a", cpu="8", labels={ZONE: "a"}), node("b", labels={ZONE: "b"}), node("c")]
    there = [pod("x", labels={"app": "w"}, on="a"), pod("y", cpu="2", on="b")]

    def told(kin: Kin, **spec: Any) -> str:
        view = Snapshot()
        for n in nodes:
            view.set_node(n)
        for other in there:
            view.place(PodInfo.of(other), other.spec["nodeName"])
        profile = Profile(filters=(PodTopologySpread(kin, one.defaults),))
        p = PodInfo.of(pod("p", labels={"app": "w"}, **spec))
        found = Cycle(view, profile, random.Random(1)).decide(p)
        return found.message() if isinstance(found, NoFit) else found

    assert told(Kin({"app": "w"})) == "b"
    nodes[1] = node("b", labels={})
    assert "1 node(s) didn't match" not in told(Kin(None))
    kin = Kin({"app": "w"})
    plugin = PodTopologySpread(kin, one.defaults)
    prepared: Any = plugin.prepare(PodInfo.of(pod("p")), Snapshot())
    assert prepared.current() and prepared.domains is not None
    kin.labels, kin.number = {"app": "v"}, 1
    assert not prepared.current()
    empty = PodTopologySpread(kin, ())
    assert empty.prepare(PodInfo.of(pod("p")), Snapshot()).__class__.__name__ == "Skip"
    nobody = PodTopologySpread(None)
    assert nobody.prepare_score(PodInfo.of(pod("p")), Snapshot()).__class__.__name__ == "Skip"


def test_the_part_of_the_nodes_that_is_scored() -> None:
    one = settings({}, percentageOfNodesToScore=20)
    two = settings({"percentageOfNodesToScore": 90}, percentageOfNodesToScore=20)
    assert (one.percent, two.percent, settings({}).percent) == (20, 90, 0)
    view = Snapshot()
    for i in range(1000):
        view.set_node(node(f"n{i}"))
    for percent, looked_at in ((20, 200), (90, 900), (0, 420), (5, 100)):
        fast = Cycle(view, made(Settings()), random.Random(1), percent)
        table: Any = fast.table(PodInfo.of(pod("p", cpu="1")), sample=True)
        assert table.looked_at == looked_at


def test_back_off_as_told() -> None:
    found = read_settings({**HEAD, "podInitialBackoffSeconds": 2, "podMaxBackoffSeconds": 5})
    queue = SchedulingQueue({}, first=found.first, longest=found.longest)
    queue.add(PodInfo.of(pod("a")), 0)
    now = 0.0
    for due in (2.0, 6.0, 11.0, 16.0):
        held = queue.pop(now)
        assert held is not None
        queue.again(held, now)
        assert queue.next_due() == due
        now = due


# -- several profiles ------------------------------------------------------------------------------

PACK: Body = {
    "schedulerName": "packer",
    "plugins": {"score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}},
    "pluginConfig": [{"name": "NodeResourcesFit",
                      "args": {"scoringStrategy": {"type": "MostAllocated"}}}],
}  # fmt: skip


def body_of(obj: Obj) -> Body:
    meta = {k: v for k, v in obj.meta.items() if k not in ("uid", "resourceVersion")}
    return {**obj.body, "metadata": meta}


def test_each_pod_is_placed_by_the_profile_it_names() -> None:
    async def scenario() -> tuple[list[Obj], list[Obj]]:
        api = await api_server()
        client = client_of(api)
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        for n in (node("a", cpu="8", memory="8Gi"), node("b", cpu="8", memory="8Gi")):
            fresh = await client.create("nodes", body_of(n))
            await client.update("nodes", {**fresh.body, "status": n.status}, subresource="status")
        await client.create("pods", body_of(pod("held", cpu="2", memory="2Gi", on="b")), "default")
        caches = Caches(client)
        told = read_settings({**HEAD, "profiles": [{"schedulerName": "default-scheduler"}, PACK]})
        scheduler = Scheduler(
            client, clock=RealClock(), rng=random.Random(1), caches=caches, settings=told
        )
        await caches.start()
        await scheduler.start()
        for name in ("default-scheduler", "packer", "somebody-else"):
            p = pod(name, cpu="1", memory="1Gi", schedulerName=name)
            await client.create("pods", body_of(p), "default")
        async with asyncio.timeout(20):
            while len((await client.list("events")).items) < 2:
                await asyncio.sleep(0.01)
        await scheduler.stop()
        await caches.stop()
        found = (await client.list("pods")).items, (await client.list("events")).items
        await api.authorizer.stop()
        return found

    pods, events = asyncio.run(scenario())
    where = {p.name: p.spec.get("nodeName") for p in pods}
    assert where == {"held": "b", "default-scheduler": "a", "packer": "b", "somebody-else": None}
    sources = {e.body["involvedObject"]["name"]: e.body["source"]["component"] for e in events}
    assert sources == {"default-scheduler": "default-scheduler", "packer": "packer"}


# -- the file --------------------------------------------------------------------------------------


def test_a_file_is_kept_once_it_is_right(tmp_path: Path) -> None:
    kept, given = tmp_path / "kept.yaml", tmp_path / "given.yaml"
    assert scheduling.load("", kept) is None
    given.write_text(yaml.safe_dump({**HEAD, "profiles": [PACK]}))
    found = scheduling.load(str(given), kept)
    assert found is not None and found.profiles[0].name == "packer"
    assert scheduling.load("", kept) == found
    for text in ("x: [", "{}", yaml.safe_dump({**HEAD, "profiles": ["a"]})):
        given.write_text(text)
        with pytest.raises(SettingsError, match=r"given\.yaml: "):
            scheduling.load(str(given), kept)
    with pytest.raises(SettingsError, match="No such file"):
        scheduling.load(str(tmp_path / "none"), kept)
    assert scheduling.load("", kept) == found

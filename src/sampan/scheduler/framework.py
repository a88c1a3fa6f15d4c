"""The scheduling framework: phases as small protocols, verdicts as values.

A pod passes, in this order: PreEnqueue, PreFilter, Filter, PostFilter (when nothing fits), Score,
Reserve, Permit, PreBind, Bind. A plug-in takes part in the phases its ``Profile`` lists it under.
PreFilter looks at the pod once and hands back what Filter asks of every node, so that a plug-in
keeps no state between the two; Score works in the same way. What a plug-in reads of the cluster
beyond nodes and pods it is given when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final, Protocol, TypeAlias

from sampan.api.obj import Obj
from sampan.scheduler.nodes import NodeInfo
from sampan.scheduler.pods import PodClass, PodInfo, amounts, pod_requests

__all__ = [
    "OK",
    "SKIP",
    "Bind",
    "Board",
    "Check",
    "Counts",
    "DomainScoring",
    "Domains",
    "Filter",
    "Groups",
    "Hopeless",
    "Judge",
    "NodeInfo",
    "Nominate",
    "Permit",
    "PodClass",
    "PodInfo",
    "PostFilter",
    "PreBind",
    "PreEnqueue",
    "Prepared",
    "Profile",
    "Reject",
    "Reserve",
    "Score",
    "Scoring",
    "Skip",
    "Tally",
    "Verdict",
    "View",
    "Wait",
    "Wake",
    "amounts",
    "pod_requests",
]  # fmt: skip

# -- verdicts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reject:
    """Why not. curable: removing pods from the node could change it (preemption may try).
    more: further reasons of the same node; each is counted by itself in the message. failed: not a
    judgement of the pod, something went wrong (Reserve and later)."""

    reason: str
    curable: bool = False
    more: tuple[str, ...] = ()
    failed: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        return (self.reason, *self.more)


@dataclass(frozen=True, slots=True)
class Wait:
    """Permit: not yet; ask again in so many seconds."""

    seconds: float


class Skip(Enum):
    """The plug-in has nothing to say about this pod; its later phases are left out."""

    SKIP = "skip"


SKIP: Final = Skip.SKIP
OK: Final = None
Verdict: TypeAlias = Reject | None  # None (OK): it fits
Check: TypeAlias = Callable[[NodeInfo], Verdict]

# -- what wakes a pod ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wake:
    """Events that may cure a plug-in's rejection: changes of *resource* of the kinds *on* (ADDED,
    MODIFIED, DELETED) for which *hint* (pod, old, new) holds; without a hint, all of them.
    A pod that is ``assigned`` stands apart from one that waits: see ``queue``."""

    resource: str
    on: tuple[str, ...] = ("ADDED", "MODIFIED", "DELETED")
    hint: Callable[[PodInfo, Obj | None, Obj | None], bool] | None = None


# -- phases -------------------------------------------------------------------------------------


class View(Protocol):
    """The cluster as one decision sees it."""

    @property
    def nodes(self) -> Mapping[str, NodeInfo]:
        """By name."""

    @property
    def affine(self) -> Mapping[PodClass, int]:
        """Classes of placed pods that have affinity terms, with the number of such pods."""

    @property
    def affinity_version(self) -> int:
        """Changes whenever ``affine`` gets a class or a namespace its labels."""

    @property
    def priorities(self) -> Mapping[int, int]:
        """How many placed pods have each priority."""

    @property
    def images(self) -> Mapping[str, int]:
        """How many nodes have each image."""

    def namespace_labels(self, name: str) -> Mapping[str, str]: ...

    def nomination(self, uid: str) -> str:
        """The node a waiting pod is nominated to; '' if none."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Pods counted by topology domain. key: the node label whose values are the domains. count:
    what one pod of a class adds. on: the nodes that take part; None: all that have the label."""

    key: str
    count: Callable[[PodClass], int]
    on: Callable[[Obj], bool] | None = None


class Board(Protocol):
    """A tally's figures at the moment of a decision."""

    @property
    def total(self) -> int:
        """Over all domains."""

    @property
    def domains(self) -> int:
        """How many domains there are."""

    def least(self) -> int:
        """The smallest figure of a domain; 0 if there is none."""


# Per tally: the figure of a node's domain; None if the node has no such label.
Counts: TypeAlias = Sequence[int | None]
Judge: TypeAlias = Callable[[Counts], Verdict]
# Per group of nodes that fit: by tally the domain (None: no label), and how many nodes it has.
# A domain of the hostname key is only told apart from None.
Groups: TypeAlias = Sequence[tuple[Sequence[object], int]]


@dataclass(frozen=True, slots=True)
class Domains:
    """A filter over topology domains. begin: once per decision, boards in the order of
    *tallies* -> the judge of each domain."""

    tallies: tuple[Tally, ...]
    begin: Callable[[Sequence[Board]], Judge]


@dataclass(frozen=True, slots=True)
class DomainScoring:
    """A score over topology domains. begin: as in ``Domains``, with the groups that fit -> the raw
    points of each; None leaves a node without points and out of the normalisation."""

    tallies: tuple[Tally, ...]
    begin: Callable[[Sequence[Board], Groups], Callable[[Counts], int | None]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What PreFilter made of a pod.

    check: asked of every node; domains: asked after the checks of all plug-ins. nodes: if given, no
    other node can fit. static: *check* reads only the node's own object, not its pods. unique: the
    answers hold for this very pod and moment, not for other pods of equal shape (they depend on
    objects beyond pods and nodes). current: asked before every decision that would use this again:
    whether it still holds.
    """

    check: Check | None = None
    nodes: frozenset[str] | None = None
    static: bool = False
    unique: bool = False
    domains: Domains | None = None
    current: Callable[[], bool] | None = None


class Filter(Protocol):
    """PreFilter and Filter: which nodes fit a pod at all."""

    name: ClassVar[str]
    wakes: ClassVar[tuple[Wake, ...]]

    def prepare(self, pod: PodInfo, view: View) -> Prepared | Reject | Skip: ...


@dataclass(frozen=True, slots=True)
class Scoring:
    """What PreScore made of a pod.

    score: raw points of a node, or domains: those of its domains. normalise: raw points of this
    node, the least and the greatest among all that fit -> 0 to 100; without it the raw points are 0
    to 100 already. static, unique, current: as in ``Prepared``.
    """

    score: Callable[[NodeInfo], int] | None = None
    normalise: Callable[[int, int, int], int] | None = None
    static: bool = False
    unique: bool = False
    domains: DomainScoring | None = None
    current: Callable[[], bool] | None = None


class Score(Protocol):
    """PreScore and Score: how well a node fits. weight: against the other scores."""

    name: ClassVar[str]
    weight: ClassVar[int]

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip: ...


class PreEnqueue(Protocol):
    """Whether a pod may be looked at at all."""

    name: ClassVar[str]
    wakes: ClassVar[tuple[Wake, ...]]

    def pre_enqueue(self, pod: PodInfo) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Nominate:
    """PostFilter found a way: *node* once *victims* are gone."""

    node: str
    victims: tuple[PodInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Hopeless:
    """PostFilter found none. message: joins the one of the failure; forget: the pod is no longer
    nominated to any node."""

    message: str
    forget: bool = True


class PostFilter(Protocol):
    """A way out when no node fits. rejected: by node name, why not. trial: whether the pod would
    fit on a changed copy of a node."""

    name: ClassVar[str]

    def post_filter(
        self, pod: PodInfo, view: View, rejected: Mapping[str, Reject], trial: Check
    ) -> Nominate | Hopeless: ...


class Reserve(Protocol):
    """Takes what a pod will use on the node chosen for it, and gives it back when a later phase
    fails. ``unreserve`` is called for every plug-in, in reverse, also for one that refused."""

    name: ClassVar[str]

    def reserve(self, pod: PodInfo, node: NodeInfo) -> Verdict: ...
    def unreserve(self, pod: PodInfo, node_name: str) -> None: ...


class Permit(Protocol):
    """Approves, denies or delays the binding of a pod that has its node. Asked again after each
    Wait."""

    name: ClassVar[str]

    def permit(self, pod: PodInfo, node_name: str) -> Verdict | Wait: ...


class PreBind(Protocol):
    """Writes what must be there before a pod is bound; runs beside the decisions for others."""

    name: ClassVar[str]

    async def pre_bind(self, pod: PodInfo, node_name: str) -> Verdict: ...


class Bind(Protocol):
    """Tells the API where a pod runs. The first that does not skip has done it. Raises StatusError,
    Unknown or OSError."""

    name: ClassVar[str]

    async def bind(self, pod: PodInfo, node_name: str) -> Verdict | Skip: ...


@dataclass(frozen=True, slots=True)
class Profile:
    """Which plug-ins take part in which phase, in the order in which they are asked."""

    pre_enqueue: tuple[PreEnqueue, ...] = ()
    filters: tuple[Filter, ...] = ()
    post_filters: tuple[PostFilter, ...] = ()
    scores: tuple[Score, ...] = ()
    reserves: tuple[Reserve, ...] = ()
    permits: tuple[Permit, ...] = ()
    pre_binds: tuple[PreBind, ...] = ()
    binds: tuple[Bind, ...] = ()
    extra_wakes: tuple[tuple[str, Wake], ...] = field(default=())  # by plug-in name
    weights: Mapping[str, int] = field(default_factory=dict)  # of scores, where not their own

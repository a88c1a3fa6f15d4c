"""What a Job asks of its pods: which run, which ended and how, which index is whose, which go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sampan.api.obj import Body, Obj
from sampan.controllers import pods as podlib
from sampan.lib.clock import parse_rfc3339
from sampan.lib.indexes import Indexes

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
ENV = "JOB_COMPLETION_INDEX"
_FIRST_DELAY, _LONGEST_DELAY = 10.0, 600.0
_NAME_BASE = 58  # of a generated name; five characters follow
_PHASES = {"Pending": 0, "Unknown": 1}


# ---- one pod -------------------------------------------------------------------------------------


def is_tracked(pod: Obj) -> bool:
    """Whether it was not booked yet: it has the finalizer."""
    return FINALIZER in (pod.meta.get("finalizers") or ())


def phase(pod: Obj) -> str:
    return str(pod.status.get("phase", ""))


def is_terminating(pod: Obj) -> bool:
    """Being deleted, and not at its end yet."""
    return pod.is_deleting and not podlib.is_finished(pod.body)


def index_of(pod: Obj) -> int | None:
    """Its completion index."""
    text = pod.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else None


def _number(pod: Obj, annotation: str) -> int:
    text = pod.annotations.get(annotation, "")
    return int(text) if text.isdecimal() else 0


def finished_at(pod: Obj) -> float:
    """When it ended: by its containers, else by when it stopped to be ready, else by its deletion,
    else (nothing watches over it) when it was created."""
    sidecars = {
        c.get("name")
        for c in pod.spec.get("initContainers") or ()
        if c.get("restartPolicy") == "Always"
    }
    statuses = list(pod.status.get("containerStatuses") or ())
    statuses += [
        s for s in pod.status.get("initContainerStatuses") or () if s.get("name") in sidecars
    ]
    ends = [((s.get("state") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    if ends and all(ends):
        return max(parse_rfc3339(e) for e in ends if e)
    for c in pod.status.get("conditions") or ():
        if c.get("type") == "Ready" and c.get("status") == "False" and c.get("lastTransitionTime"):
            return parse_rfc3339(c["lastTransitionTime"])
    if pod.is_deleting:
        grace = pod.meta.get("deletionGracePeriodSeconds") or 0
        return parse_rfc3339(pod.meta["deletionTimestamp"]) - grace
    return parse_rfc3339(pod.meta["creationTimestamp"])


# ---- a Job's settings ----------------------------------------------------------------------------


def is_indexed(job: Body) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def has_limit_per_index(job: Body) -> bool:
    return is_indexed(job) and job["spec"].get("backoffLimitPerIndex") is not None


def replaces_only_failed(job: Body) -> bool:
    """Whether a pod that is being deleted holds its place until it has ended."""
    spec = job["spec"]
    failure_policy = spec.get("podFailurePolicy") is not None
    return bool(spec.get("podReplacementPolicy") == "Failed" or failure_policy)


def is_failed(pod: Obj, job: Body) -> bool:
    """A pod that is deleted counts as failed at once, unless only failed ones are replaced."""
    if phase(pod) == "Failed":
        return True
    if replaces_only_failed(job):
        return False
    return pod.is_deleting and phase(pod) != "Succeeded"


def has_valid_index(pod: Obj, job: Body) -> bool:
    if not is_indexed(job):
        return True
    index = index_of(pod)
    return index is not None and index < int(job["spec"].get("completions") or 0)


# ---- pod failure policy --------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What the failure policy says of a failed pod. action: '' when no rule fits; message: only of
    FailJob."""

    action: str = ""
    message: str = ""

    @property
    def counts(self) -> bool:
        """Whether it counts towards the limits."""
        return self.action != "Ignore"


def judge(job: Body, pod: Obj) -> Verdict:
    """The first rule of the pod failure policy that fits *pod*."""
    policy = job["spec"].get("podFailurePolicy") or {}
    for i, rule in enumerate(policy.get("rules") or ()):
        action = str(rule.get("action", ""))
        where = f"matching {action} rule at index {i}"
        if rule.get("onExitCodes") is not None:
            found = _container(pod, rule["onExitCodes"])
            if found is not None:
                name, code = found
                text = (
                    f"Container {name} for pod {pod.namespace}/{pod.name} failed with exit code "
                    f"{code} {where}"
                )
                return Verdict(action, text if action == "FailJob" else "")
        else:
            kind = _condition(pod, rule.get("onPodConditions") or ())
            if kind is not None:
                text = f"Pod {pod.namespace}/{pod.name} has condition {kind} {where}"
                return Verdict(action, text if action == "FailJob" else "")
    return Verdict()


def _container(pod: Obj, codes: Body) -> tuple[str, int] | None:
    """The first container whose exit code the rule names, and the code."""
    wanted, values = codes.get("containerName"), codes.get("values") or ()
    for kind in ("containerStatuses", "initContainerStatuses"):
        for status in pod.status.get(kind) or ():
            ended = (status.get("state") or {}).get("terminated")
            if ended is None or (wanted is not None and status.get("name") != wanted):
                continue
            code = int(ended.get("exitCode", 0))
            if code and (code in values) == (codes.get("operator") == "In"):
                return str(status.get("name")), code
    return None


def _condition(pod: Obj, patterns: Iterable[Body]) -> str | None:
    for c in pod.status.get("conditions") or ():
        for pattern in patterns:
            if c.get("type") == pattern.get("type"):
                if c.get("status") == pattern.get("status", "True"):
                    return str(c["type"])
    return None


# ---- indexes -------------------------------------------------------------------------------------


def succeeded_indexes(job: Body, pods: Iterable[Obj]) -> tuple[Indexes, Indexes]:
    """Those of the status, and with them those of pods that succeeded since."""
    limit = int(job["spec"].get("completions") or 0)
    before = Indexes.parse((job.get("status") or {}).get("completedIndexes") or "", limit)
    new = [
        i for p in pods
        if is_tracked(p) and phase(p) == "Succeeded" and (i := index_of(p)) is not None
        and i < limit
    ]  # fmt: skip
    return before, before | Indexes.of(new)


def failed_indexes(job: Body, pods: Iterable[Obj]) -> Indexes:
    """Those that have used up their own back-off limit, or were failed by the policy."""
    limit = int(job["spec"].get("completions") or 0)
    before = Indexes.parse((job.get("status") or {}).get("failedIndexes") or "", limit)
    new = [
        i for p in pods
        if is_tracked(p) and (i := index_of(p)) is not None and i < limit and _fails_index(job, p)
    ]  # fmt: skip
    return before | Indexes.of(new)


def _fails_index(job: Body, pod: Obj) -> bool:
    if not is_failed(pod, job):
        return False
    verdict = judge(job, pod)
    if verdict.action == "FailIndex":
        return True
    limit = int(job["spec"]["backoffLimitPerIndex"])
    return verdict.counts and _number(pod, FAILURES) >= limit


def _failures(pod: Obj) -> int:
    """All failures of its index before it, ignored ones too."""
    return _number(pod, FAILURES) + _number(pod, IGNORED_FAILURES)


def held_back(
    job: Body, pods: Iterable[Obj], active: Iterable[Obj], done: Indexes
) -> dict[int, Obj]:
    """By index, the last failed pod of an index that is still to be tried again. It is booked only
    when its successor carries on its count of failures."""
    running = {index_of(p) for p in active}
    held: dict[int, Obj] = {}
    for p in pods:
        i = index_of(p)
        if not is_tracked(p) or i is None or not has_valid_index(p, job):
            continue
        if not is_failed(p, job) or i in done or i in running:
            continue
        last = held.get(i)
        if last is None or (
            _failures(last) <= _failures(p) and finished_at(last) <= finished_at(p)
        ):
            held[i] = p
    return held


def pending_indexes(count: int, completions: int, taken: Indexes) -> list[int]:
    """The first *count* indexes nobody has."""
    found: list[int] = []
    for i in taken.missing(completions):
        if len(found) == count:
            break
        found.append(i)
    return found


# ---- back-off ------------------------------------------------------------------------------------


def delay(failures: int, last: float, now: float) -> float:
    """Seconds until the next try after so many failures in a row: 10 s, doubled with every further
    failure, ten minutes at most, counted from the last failure."""
    if not failures:
        return 0.0
    wait = min(_FIRST_DELAY * 2.0 ** min(failures - 1, 20), _LONGEST_DELAY)
    return max(0.0, last + wait - now)


def delay_of_index(replaced: Obj | None, now: float) -> float:
    if replaced is None:
        return 0.0
    return delay(_failures(replaced) + 1, finished_at(replaced), now)


# ---- which pods go, and what new ones look like --------------------------------------------------


def for_removal(job: Body, active: Sequence[Obj], at_least: int) -> list[Obj]:
    """Active pods that are too many: those without an index of their own, then, up to *at_least*,
    those that have come the least far."""
    gone: list[Obj] = []
    left = list(active)
    if is_indexed(job):
        left = []
        by_index: dict[int, list[Obj]] = {}
        for p in active:
            i = index_of(p)
            if i is None or not has_valid_index(p, job):
                gone.append(p)
            else:
                by_index.setdefault(i, []).append(p)
        for i in sorted(by_index):
            *more, last = sorted(by_index[i], key=_progress)
            gone += more
            left.append(last)
    if len(gone) < at_least:
        gone += sorted(left, key=_progress)[: at_least - len(gone)]
    return gone


def _progress(pod: Obj) -> tuple[float, ...]:
    """Unassigned, pending, not ready, ready for a short time, often restarted, young ones first."""
    since = podlib.ready_since(pod.body)
    restarts = max(
        (c.get("restartCount", 0) for c in pod.status.get("containerStatuses") or ()), default=0
    )
    created = parse_rfc3339(pod.meta["creationTimestamp"])
    return (
        1 if pod.spec.get("nodeName") else 0,
        _PHASES.get(phase(pod), 2),
        1 if podlib.is_ready(pod.body) else 0,
        -since if since is not None else 0.0,
        -restarts,
        -created,
    )


def new_pod(job: Body, index: int | None, replaced: Obj | None) -> Body:
    """The pod *job* creates next. index: of an indexed Job; replaced: the failed pod of that index
    whose count it carries on (of a Job with a limit per index)."""
    pod = podlib.from_template(job, job["spec"]["template"], api_version="batch/v1", kind="Job")
    meta = pod["metadata"]
    finalizers = list(meta.get("finalizers") or ())
    meta["finalizers"] = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]
    if index is None:
        return pod
    name = str(job["metadata"]["name"])
    annotations = {**(meta.get("annotations") or {}), INDEX: str(index)}
    if has_limit_per_index(job):
        annotations.update(_carried(job, replaced))
    meta["annotations"] = annotations
    meta["labels"] = {**(meta.get("labels") or {}), INDEX: str(index)}
    suffix = f"-{index}-"
    meta["generateName"] = f"{name[: _NAME_BASE - len(suffix)]}{suffix}"
    spec = dict(pod["spec"])
    spec["hostname"] = f"{name}-{index}"
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [_with_index(c) for c in spec[kind]]
    pod["spec"] = spec
    return pod


def _carried(job: Body, replaced: Obj | None) -> dict[str, str]:
    if replaced is None:
        return {FAILURES: "0"}
    failures, ignored = _number(replaced, FAILURES), _number(replaced, IGNORED_FAILURES)
    if judge(job, replaced).counts:
        failures += 1
    else:
        ignored += 1
    found = {FAILURES: str(failures)}
    if ignored:
        found[IGNORED_FAILURES] = str(ignored)
    return found


def _with_index(container: Body) -> Body:
    env = container.get("env") or []
    if any(e.get("name") == ENV for e in env):
        return container
    ref = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*env, {"name": ENV, "valueFrom": ref}]}

"""What random histories are made of: faults, behaviours of containers, and objects of every kind,
all drawn from one seed.

A history has themes. Without any it is about workloads alone; each theme adds objects, and gives
workloads what these are about: requests, volumes, priorities.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sampan.api.obj import Body
from sampan.node.runtime.fake import LABEL
from sampan.sim.faults import Faults

NAMESPACE = "work"
THEMES = ("budgets", "scaling", "quotas", "volumes", "priorities", "services")
# Created with every world of the theme "priorities"; none has the value 0.
PRIORITIES = {"low": (100, ""), "high": (1000, ""), "patient": (500, "Never")}
IMAGES = tuple(f"v{n}" for n in range(1, 10))
_AT_ONCE = "sampan-local-immediate"


@dataclass(slots=True)
class Dice:
    """Draws what happens; everything from one seed."""

    rng: random.Random
    themes: frozenset[str] = frozenset()
    made: dict[str, list[str]] = field(default_factory=dict)  # resource -> names

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def draw_themes(self) -> frozenset[str]:
        """A third of the histories has none, most others one or two."""
        count = self.rng.choice([0, 0, 1, 1, 2, 3])
        self.themes = frozenset(self.rng.sample(THEMES, count))
        return self.themes

    def faults(self) -> Faults:
        """Half of the worlds are calm in one respect or another."""
        pick = self.rng.choice
        return Faults(
            error=pick([0, 0, 0.02, 0.1]), lost=pick([0, 0, 0.02, 0.05]),
            conflict=pick([0, 0, 0.05, 0.2]), slow=pick([0, 0, 0.05, 0.5]),
            watch_slow=pick([0, 0, 0.2, 2.0]), watch_drop=pick([0, 0, 0.02, 0.1]),
            watch_repeat=pick([0, 0, 0.05]), watch_expire=pick([0, 0, 0.01, 0.05]),
            kill=pick([0, 0, 0.002, 0.01]), kill_one=pick([0, 0, 0.005, 0.02]),
        )  # fmt: skip

    def behaviour(self, *, ends: bool) -> str:
        pick, rng = self.rng.choice, self.rng
        parts = []
        if ends or self.chance(0.15):
            parts.append(f"run={rng.randint(1, 40)}")
            parts.append(f"exit={pick([0, 0, 0, 1] if ends else [0, 1])}")
        if self.chance(0.2):
            parts.append(f"start_delay={rng.randint(1, 10)}")
        if self.chance(0.2):
            parts.append(f"stop_delay={rng.randint(1, 40)}")
        if self.chance(0.05):
            parts.append(pick(["start_error=no such file", "create_error=no such device"]))
        return ",".join(parts)

    def template(self, app: str, *, ends: bool = False, restart: str = "") -> Body:
        container: Body = {"name": "c", "image": self.rng.choice(IMAGES)}
        spec: Body = {
            "containers": [container],
            "terminationGracePeriodSeconds": self.rng.choice([0, 5, 30]),
        }
        if restart:
            spec["restartPolicy"] = restart
        if self.themes & {"scaling", "quotas", "priorities"} and self.chance(0.8):
            container["resources"] = {"requests": {"cpu": self.cpu()}}
        if "priorities" in self.themes and self.chance(0.7):
            spec["priorityClassName"] = self.rng.choice([*PRIORITIES])
        if "volumes" in self.themes and self.chance(0.3):
            spec["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "spec": self.claim("scratch")}}}]  # fmt: skip
        behaviour = self.behaviour(ends=ends)
        annotations = {LABEL: behaviour} if behaviour else {}
        return {"metadata": {"labels": {"app": app}, "annotations": annotations}, "spec": spec}

    def cpu(self) -> str:
        small = ["50m", "100m", "250m"]
        return self.rng.choice(["500m", "1", "2", "3"] if "priorities" in self.themes else small)

    def claim(self, _name: str) -> Body:
        spec: Body = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": self.rng.choice(["1Gi", "2Gi"])}},
        }
        if self.chance(0.3):
            spec["storageClassName"] = _AT_ONCE
        return spec

    def app(self) -> str:
        """The label of some workload that was made, or of one that may come."""
        apps = [n for r in WORKLOADS for n in self.made.get(r, ())]
        return self.rng.choice([*apps, "web0"])


# -- workloads -------------------------------------------------------------------------------------


def _bounds(dice: Dice) -> Body:
    surge = dice.rng.choice([0, 1, 2, "25%", "50%"])
    unavailable = dice.rng.choice([1, 2, "25%"] if surge == 0 else [0, 1, "25%"])
    return {"maxSurge": surge, "maxUnavailable": unavailable}


def _replicated(dice: Dice, name: str) -> Body:
    return {
        "replicas": dice.rng.randint(0, 5), "template": dice.template(name),
        "selector": {"matchLabels": {"app": name}},
    }  # fmt: skip


def _deployment(dice: Dice, name: str) -> Body:
    strategy: Body = {"type": "RollingUpdate", "rollingUpdate": _bounds(dice)}
    if dice.chance(0.2):
        strategy = {"type": "Recreate"}
    return {**_replicated(dice, name), "strategy": strategy,
            "minReadySeconds": dice.rng.choice([0, 0, 5]),
            "revisionHistoryLimit": dice.rng.choice([0, 2, 10])}  # fmt: skip


def _controller(dice: Dice, name: str) -> Body:
    return {**_replicated(dice, name), "selector": {"app": name}}


def _stateful(dice: Dice, name: str) -> Body:
    spec = _replicated(dice, name)
    # Without any grace a deletion does not wait for the containers: identities may then overlap.
    pod = spec["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = pod["terminationGracePeriodSeconds"] or 1
    spec |= {
        "serviceName": name,
        "podManagementPolicy": dice.rng.choice(["OrderedReady", "Parallel"]),
        "updateStrategy": {"type": dice.rng.choice(["RollingUpdate", "OnDelete"])},
    }
    if "volumes" in dice.themes and dice.chance(0.8):
        kinds = ["Retain", "Delete"]
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": dice.claim("data")}]
        spec["persistentVolumeClaimRetentionPolicy"] = {
            "whenScaled": dice.rng.choice(kinds), "whenDeleted": dice.rng.choice(kinds),
        }  # fmt: skip
    return spec


def _daemon(dice: Dice, name: str) -> Body:
    rolling: Body = {"maxUnavailable": dice.rng.choice([1, "50%"])}
    if dice.chance(0.3):
        rolling = {"maxSurge": 1, "maxUnavailable": 0}
    return {"template": dice.template(name), "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}  # fmt: skip


def _job(dice: Dice, name: str) -> Body:
    restart = dice.rng.choice(["Never", "OnFailure"])
    spec: Body = {
        "parallelism": dice.rng.randint(1, 4), "completions": dice.rng.randint(1, 6),
        "backoffLimit": dice.rng.choice([0, 2, 6]),
        "template": dice.template(name, ends=True, restart=restart),
    }  # fmt: skip
    if dice.chance(0.4):
        spec["completionMode"] = "Indexed"
    if dice.chance(0.2):
        spec["activeDeadlineSeconds"] = dice.rng.randint(20, 300)
    if dice.chance(0.2):
        spec["ttlSecondsAfterFinished"] = dice.rng.randint(0, 100)
    if dice.chance(0.3):
        spec["podReplacementPolicy"] = "Failed"
    return spec


def _cron(dice: Dice, name: str) -> Body:
    return {
        "schedule": dice.rng.choice(["* * * * *", "*/2 * * * *", "*/5 * * * *"]),
        "concurrencyPolicy": dice.rng.choice(["Allow", "Forbid", "Replace"]),
        "successfulJobsHistoryLimit": dice.rng.randint(0, 3),
        "failedJobsHistoryLimit": dice.rng.randint(0, 2),
        "jobTemplate": {"spec": _job(dice, name)},
    }


# resource -> (prefix of names, its spec)
Spec = Callable[[Dice, str], Body]
WORKLOADS: dict[str, tuple[str, Spec]] = {
    "deployments.apps": ("web", _deployment),
    "replicasets.apps": ("set", _replicated),
    "replicationcontrollers": ("rc", _controller),
    "statefulsets.apps": ("db", _stateful),
    "daemonsets.apps": ("agent", _daemon),
    "jobs.batch": ("job", _job),
    "cronjobs.batch": ("cron", _cron),
}
# What users let own each other.
OWNERS = {"configmaps": "ConfigMap", "secrets": "Secret", "serviceaccounts": "ServiceAccount"}
SCALED = ("deployments.apps", "replicasets.apps", "statefulsets.apps", "replicationcontrollers")
TEMPLATED = ("deployments.apps", "statefulsets.apps", "daemonsets.apps")


# -- what stands beside workloads ------------------------------------------------------------------


def budget(dice: Dice, _name: str) -> Body:
    spec: Body = {"selector": {"matchLabels": {"app": dice.app()}}}
    amount = dice.rng.choice([0, 1, 1, 2, "25%", "50%", "100%"])
    spec[dice.rng.choice(["minAvailable", "maxUnavailable"])] = amount
    if dice.chance(0.3):
        spec["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
    return spec


def autoscaler(dice: Dice, _name: str) -> Body:
    # One of them for each: two with bounds of their own would pull for ever.
    target = f"web{len(dice.made.get('horizontalpodautoscalers.autoscaling', ()))}"
    least = dice.rng.randint(1, 3)
    spec: Body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "minReplicas": least, "maxReplicas": least + dice.rng.randint(0, 5),
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {
            "type": "Utilization", "averageUtilization": dice.rng.choice([50, 80])}}}],
    }  # fmt: skip
    if dice.chance(0.5):
        spec["behavior"] = {
            side: {"policies": [{"type": "Pods", "value": dice.rng.randint(1, 2),
                                 "periodSeconds": dice.rng.choice([30, 60, 120])}],
                   "stabilizationWindowSeconds": dice.rng.choice([0, 60])}
            for side in ("scaleUp", "scaleDown")
        }  # fmt: skip
    return spec


def quota(dice: Dice, _name: str) -> Body:
    most = dice.rng.randint
    known = {
        "pods": str(most(1, 12)), "requests.cpu": f"{most(2, 20)}00m", "services": str(most(0, 3)),
        "count/jobs.batch": str(most(0, 4)), "persistentvolumeclaims": str(most(0, 5)),
        "configmaps": str(most(1, 4)), "count/deployments.apps": str(most(0, 4)),
    }  # fmt: skip
    names = dice.rng.sample([*known], dice.rng.randint(1, 4))
    return {"hard": {name: known[name] for name in names}}


def limits(dice: Dice, _name: str) -> Body:
    return {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"},
                        "default": {"cpu": dice.rng.choice(["200m", "400m"])},
                        "max": {"cpu": "4"}}]}  # fmt: skip


def claim(dice: Dice, name: str) -> Body:
    return dice.claim(name)


def service(dice: Dice, _name: str) -> Body:
    spec: Body = {"selector": {"app": dice.app()}, "ports": [{"port": 80}]}
    kind = dice.rng.choice(["", "", "headless", "unready", "mirrored"])
    if kind == "headless":
        spec["clusterIP"] = "None"
    elif kind == "unready":
        spec["publishNotReadyAddresses"] = True
    elif kind == "mirrored":
        del spec["selector"]
    return spec


# theme -> resource -> (prefix of names, its spec)
BESIDE: dict[str, dict[str, tuple[str, Spec]]] = {
    "budgets": {"poddisruptionbudgets.policy": ("budget", budget)},
    "scaling": {"horizontalpodautoscalers.autoscaling": ("scaler", autoscaler)},
    "quotas": {"resourcequotas": ("quota", quota), "limitranges": ("limits", limits)},
    "volumes": {"persistentvolumeclaims": ("claim", claim)},
    "priorities": {},
    "services": {"services": ("front", service)},
}
KINDS: dict[str, tuple[str, Spec]] = {
    **WORKLOADS, **{r: k for kinds in BESIDE.values() for r, k in kinds.items()},
}  # fmt: skip
# What a history of a theme begins with.
OPENINGS: dict[str, tuple[str, ...]] = {
    "budgets": ("deployments.apps", "statefulsets.apps", "poddisruptionbudgets.policy"),
    "scaling": ("deployments.apps", "horizontalpodautoscalers.autoscaling"),
    "quotas": ("resourcequotas", "deployments.apps"),
    "volumes": ("statefulsets.apps", "persistentvolumeclaims"),
    "priorities": ("deployments.apps", "replicasets.apps", "statefulsets.apps"),
    "services": ("deployments.apps", "services"),
}

"""ReplicationController: the forebear of ReplicaSet, kept alive by the same plan."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.control.facts import Facts
from sampan.controllers import replicaset
from sampan.controllers.replicaset import ReplicaSetController
from sampan.lib.selectors import NOTHING, Selector, from_labels


class ReplicationControllerController(ReplicaSetController):
    """Its selector is a plain map of labels, and its status does not count what terminates."""

    name = "replication-controller"
    resource = "replicationcontrollers"
    kind = "ReplicationController"
    api_version = "v1"
    counts_terminating = False

    @staticmethod
    def selector(body: Body) -> Selector:
        chosen = body["spec"].get("selector")
        return from_labels(chosen) if chosen else NOTHING


FACTS = Facts(
    kind="ReplicationController",
    definition="io.k8s.api.core.v1.ReplicationController",
    controller=ReplicationControllerController.name,
    status=replicaset.STATUS,
    conditions=replicaset.FACTS.conditions,
    events=replicaset.FACTS.events,
    reads=replicaset.READS,
)

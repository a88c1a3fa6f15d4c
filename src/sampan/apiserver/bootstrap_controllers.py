"""The rights of each controller, upstream's. A new controller is a line here."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.apiserver import bootstrap_certificates as certificates
from sampan.apiserver.bootstrap_rules import EVENTS, RBAC, READ, rule

# Each controller's own rights; get, list and watch on what it names come by themselves (our
# controllers read as themselves, upstream's through a shared informer).
CONTROLLERS: dict[str, tuple[Body, ...]] = {
    "certificate-controller": (*certificates.CONTROLLER, EVENTS),
    "namespace-controller": (
        rule("delete get list watch update patch", "core", "namespaces"),
        rule("update patch", "core", "namespaces/finalize namespaces/status"),
        rule("delete deletecollection get list watch patch update", "*", "*"),
    ),
    "service-account-controller": (
        rule("create", "core", "serviceaccounts"), rule(READ, "core", "namespaces"), EVENTS,
    ),
    "root-ca-cert-publisher": (
        rule("create update patch", "core", "configmaps"), rule(READ, "core", "namespaces"),
        EVENTS,
    ),
    "generic-garbage-collector": (
        rule("delete get list patch update watch", "*", "*"), EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        rule("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        rule("patch delete", "core", "secrets"),
    ),
    "clusterrole-aggregation-controller": (
        rule("escalate get list patch update watch", RBAC, "clusterroles"),
    ),
    "persistent-volume-binder": (
        rule("get list watch update create delete", "core", "persistentvolumes"),
        rule("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
        rule("get list watch update", "core", "persistentvolumeclaims"),
        rule("get list watch create delete", "core", "pods"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("get create update delete", "core", "endpoints services"),
        rule("get list", "core", "secrets"), rule("get list", "core", "nodes"), EVENTS,
    ),
    "expand-controller": (
        rule("get list watch update patch", "core", "persistentvolumes"),
        rule("update patch", "core", "persistentvolumeclaims/status"),
        rule(READ, "core", "persistentvolumeclaims"),
        rule("get", "core", "endpoints services secrets"), EVENTS,
    ),
    "pvc-protection-controller": (
        rule("get list watch update", "core", "persistentvolumeclaims"),
        rule(READ, "core", "pods"), EVENTS,
    ),
    "pv-protection-controller": (
        rule("get list watch update", "core", "persistentvolumes"), EVENTS,
    ),
    "ephemeral-volume-controller": (
        rule("get list watch create", "core", "persistentvolumeclaims"),
        rule("update", "core", "pods/finalizers"), rule(READ, "core", "pods"), EVENTS,
    ),
    "local-provisioner": (  # ours: as system:persistent-volume-provisioner
        rule("get list watch create delete update patch", "core", "persistentvolumes"),
        rule("get list watch update patch", "core", "persistentvolumeclaims"),
        rule(READ, "core", "nodes"), rule(READ, "storage.k8s.io", "storageclasses"), EVENTS,
    ),
    "replicaset-controller": (
        rule("get list watch update patch", "apps", "replicasets"),
        rule("update patch", "apps", "replicasets/status"),
        rule("update", "apps", "replicasets/finalizers"),
        rule("create delete get list patch update watch", "core", "pods"),
        EVENTS,
    ),
    "deployment-controller": (
        rule("get list watch update patch", "apps", "deployments"),
        rule("update patch", "apps", "deployments/status"),
        rule("update", "apps", "deployments/finalizers"),
        rule("create delete get list patch update watch", "apps", "replicasets"),
        rule("get list update watch", "core", "pods"),
        EVENTS,
    ),
    "replication-controller": (
        rule("get list watch update patch", "core", "replicationcontrollers"),
        rule("update patch", "core", "replicationcontrollers/status"),
        rule("update", "core", "replicationcontrollers/finalizers"),
        rule("create delete list patch watch", "core", "pods"),
        EVENTS,
    ),
    "statefulset-controller": (
        rule("list watch", "core", "pods"),
        rule(READ, "apps", "statefulsets"),
        rule("update patch", "apps", "statefulsets/status"),
        rule("update", "apps", "statefulsets/finalizers"),
        rule("get create delete update patch", "core", "pods"),
        rule("get create delete update patch list watch", "apps", "controllerrevisions"),
        rule("get create update delete", "core", "persistentvolumeclaims"),
        EVENTS,
    ),
    "daemon-set-controller": (
        rule(READ, "apps", "daemonsets"),
        rule("update patch", "apps", "daemonsets/status"),
        rule("update", "apps", "daemonsets/finalizers"),
        rule("list watch", "core", "nodes"),
        rule("list watch create delete patch", "core", "pods"),
        rule("create", "core", "pods/binding"),
        rule("get list watch create delete update patch", "apps", "controllerrevisions"),
        EVENTS,
    ),
    "endpoint-controller": (
        rule(READ, "core", "pods services"),
        rule("create delete get list update patch watch", "core", "endpoints"),
        rule("create", "core", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        rule(READ, "core", "nodes pods services"),
        rule("update", "core", "services/finalizers"),
        rule("create delete get list update patch watch", "discovery.k8s.io", "endpointslices"),
        rule("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        rule(READ, "core", "endpoints services"),
        rule("update", "core", "endpoints/finalizers services/finalizers"),
        rule("create delete get list update patch watch", "discovery.k8s.io", "endpointslices"),
        rule("create", "discovery.k8s.io", "endpointslices/restricted"),
        EVENTS,
    ),
    "service-cidrs-controller": (
        rule("get list watch patch update", "networking.k8s.io", "servicecidrs"),
        rule("patch update", "networking.k8s.io",
              "servicecidrs/finalizers servicecidrs/status"),
        rule(READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ),
    "service-controller": (
        rule(READ, "core", "services"), rule("patch update", "core", "services/status"),
        rule("list watch", "core", "nodes"), EVENTS,
    ),
    "kubernetes-service-controller": (
        rule("create get list update patch watch", "core", "endpoints services"),
        rule("create get list update patch watch", "discovery.k8s.io", "endpointslices"),
        rule(READ, "core", "namespaces"),
        EVENTS,
    ),
    "node-controller": (
        rule("get list watch update delete patch", "core", "nodes"),
        rule("update patch", "core", "nodes/status"),
        rule("update patch", "core", "pods/status"),
        rule("list watch get delete", "core", "pods"),
        rule(READ, "coordination.k8s.io", "leases"),
        EVENTS,
    ),
    "pod-garbage-collector": (
        rule("list watch delete get", "core", "pods"), rule("get list watch", "core", "nodes"),
        rule("patch update", "core", "pods/status"),
    ),
    "horizontal-pod-autoscaler": (
        rule("get list watch", "autoscaling", "horizontalpodautoscalers"),
        rule("update", "autoscaling", "horizontalpodautoscalers/status"),
        rule("get update", "*", "*/scale"),
        rule("list", "core", "pods"),
        rule("list", "metrics.k8s.io", "pods"),
        rule("get list", "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
        EVENTS,
    ),
    "job-controller": (
        rule("get list watch update patch", "batch", "jobs"),
        rule("update patch", "batch", "jobs/status"),
        rule("update", "batch", "jobs/finalizers"),
        rule("create delete get list patch update watch", "core", "pods"),
        EVENTS,
    ),
    "cronjob-controller": (
        rule("get list watch update patch", "batch", "cronjobs"),
        rule("create delete get list patch update watch", "batch", "jobs"),
        rule("update patch", "batch", "cronjobs/status"),
        rule("update", "batch", "cronjobs/finalizers"),
        rule("list delete", "core", "pods"),
        EVENTS,
    ),
    "network-policy-controller": (
        rule(READ, "core", "namespaces pods"),
        rule(READ, "networking.k8s.io", "networkpolicies"),
    ),
    "disruption-controller": (
        rule(READ, "apps", "deployments replicasets statefulsets"),
        rule(READ, "core", "replicationcontrollers pods"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule("update", "policy", "poddisruptionbudgets/status"),
        rule("patch update", "core", "pods/status"),
        rule("get", "*", "*/scale"),
        EVENTS,
    ),
    "taint-eviction-controller": (
        rule("get list watch", "core", "nodes"),
        rule("get delete list watch", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        EVENTS,
    ),
    "ttl-controller": (rule("update patch list watch", "core", "nodes"), EVENTS),
    "resourcequota-controller": (
        rule("list watch", "*", "*"), rule("update", "core", "resourcequotas/status"), EVENTS,
    ),
    "ttl-after-finished-controller": (
        rule("get list watch delete", "batch", "jobs"), EVENTS,
    ),
}  # fmt: skip

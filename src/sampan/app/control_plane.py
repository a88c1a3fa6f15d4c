"""The control plane in one process: API server, controllers, scheduler, each under its own name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from sampan.api.call import User
from sampan.api.catalogue import builtin
from sampan.api.usage import UsageOfNodes
from sampan.apiserver import admission
from sampan.apiserver.aggregation import Aggregation
from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.authn import TokenIssuer
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.endpoint import ApiServer
from sampan.apiserver.remote import Reach, loopback
from sampan.app.pki import FrontProxy
from sampan.client.base import Client, Transport
from sampan.client.local import LocalTransport
from sampan.control.engine import Engine
from sampan.controllers.account_tokens import (
    TOKENS,
    AccountTokens,
    TokenCleaner,
    TokenTracking,
)
from sampan.controllers.address_repair import AddressRepair
from sampan.controllers.api_services import ApiServiceAvailability
from sampan.controllers.authentication_trust import AuthenticationTrust
from sampan.controllers.autoscaler import Autoscaler
from sampan.controllers.certificates import (
    CertificateApprover,
    CertificateCleaner,
    CertificateSigner,
)
from sampan.controllers.cronjob import CronJobController
from sampan.controllers.daemonset import DaemonSetController
from sampan.controllers.deployment import DeploymentController
from sampan.controllers.disruption import DisruptionController, StaleDisruptions
from sampan.controllers.endpoints import EndpointsController
from sampan.controllers.endpointslice import EndpointSliceController
from sampan.controllers.ephemeral_volume import EphemeralVolumes
from sampan.controllers.flow_schemas import DanglingFlowSchemas
from sampan.controllers.garbage import GarbageCollector
from sampan.controllers.job import JobController
from sampan.controllers.job_release import JobPodReleaser
from sampan.controllers.kubernetes_service import (
    DnsServiceController,
    KubernetesServiceController,
)
from sampan.controllers.load_balancer import LoadBalancerController
from sampan.controllers.local_provisioner import LocalProvisioner
from sampan.controllers.mirroring import EndpointSliceMirroringController
from sampan.controllers.namespace import Elsewhere, NamespaceController
from sampan.controllers.node_eviction import NodeEviction
from sampan.controllers.node_health import NodeHealth
from sampan.controllers.node_ttl import NodeTtlController
from sampan.controllers.pod_gc import EndedPods, PodCollector
from sampan.controllers.port_repair import PortRepair
from sampan.controllers.replicaset import ReplicaSetController
from sampan.controllers.replicationcontroller import ReplicationControllerController
from sampan.controllers.resourcequota import ResourceQuotaController
from sampan.controllers.role_aggregation import RoleAggregation
from sampan.controllers.rootca import RootCaController
from sampan.controllers.service_cidrs import ServiceCIDRController
from sampan.controllers.serviceaccount import ServiceAccountController
from sampan.controllers.statefulset import StatefulSetController
from sampan.controllers.taint_eviction import TaintEvictionController
from sampan.controllers.ttl_after_finished import TtlAfterFinishedController
from sampan.controllers.volume_binder import VolumeBinder
from sampan.controllers.volume_expand import VolumeExpand
from sampan.controllers.volume_protection import ClaimProtection, VolumeProtection
from sampan.lib import csr
from sampan.lib.addressing import DEFAULT, Plan
from sampan.lib.clock import Clock
from sampan.lib.ids import Ids
from sampan.scheduler.scheduler import Scheduler
from sampan.scheduler.settings import Configuration
from sampan.schema.walk import Schemas
from sampan.store.base import Store

_AUTHENTICATED = "system:authenticated"
APISERVER = User("system:apiserver", ("system:masters", _AUTHENTICATED))
ADMIN = User("kubernetes-admin", ("system:masters", _AUTHENTICATED))
SCHEDULER = User("system:kube-scheduler", (_AUTHENTICATED,))
MANAGER = User("system:kube-controller-manager", (_AUTHENTICATED,))


def controller_user(name: str) -> User:
    """The service account a controller acts as."""
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", _AUTHENTICATED)
    return User(f"system:serviceaccount:kube-system:{name}", groups)


def node_user(name: str) -> User:
    return User(f"system:node:{name}", ("system:nodes", _AUTHENTICATED))


class ControlPlane:
    """Over a store; everything in it speaks to the API by local transports.

    root_ca: PEM, published in every namespace. sign: with its key, requests that were approved.
    token_key: PEM, signs service account tokens.
    addresses: the cluster's; api_port: where the ``kubernetes`` Service points to.
    host_address: the cluster's own loopback address, where LoadBalancer services are found.
    line: what stands between a component and the API (worlds with faults put theirs there).
    usage: what the containers of each node use, by node (metrics.k8s.io).
    pace: how many times longer than usual its regular work waits (worlds in which years pass).
    proxy: how other API servers know this one; reach: how addresses of Services are connected to.
    scheduling: the scheduler's settings.
    """

    def __init__(
        self, store: Store, *, clock: Clock, ids: Ids, rng: random.Random, root_ca: str,
        sign: csr.Sign, token_key: bytes, addresses: Plan = DEFAULT, api_port: int = 6443,
        host_address: str = "127.0.0.1",
        line: Callable[[Transport, User], Transport] = lambda transport, _user: transport,
        usage: UsageOfNodes = dict, proxy: FrontProxy | None = None, reach: Reach = loopback,
        pace: float = 1.0, scheduling: Configuration | None = None,
    ) -> None:  # fmt: skip
        self._line = line
        self.store = store
        self.clock = clock
        self.rng = rng
        self.registry = builtin()
        self.schemas = Schemas.load()
        self.authorizer = RbacAuthorizer()
        self.tokens = TokenIssuer(token_key, clock=clock, ids=ids)
        self.tokens.bind_store(store)
        self._allocator = ServiceAllocator(cidrs=addresses.services)
        self.aggregation = Aggregation(
            self.registry, store, reach=reach, identity=proxy.client if proxy else None
        )
        self.api = ApiServer(
            registry=self.registry, schemas=self.schemas, store=store, clock=clock, ids=ids,
            authorizer=self.authorizer, admission=admission.builtin(), token_issuer=self.tokens,
            services=self._allocator, usage=usage, aggregation=self.aggregation,
            pace=pace,
        )  # fmt: skip
        self.engine = Engine(self._controller_client, clock=clock, rng=rng)
        self.load_balancers = LoadBalancerController(host_address)
        self._stored = [t for t in self.registry if not t.virtual and t.alias is None]
        self._made_with = (root_ca, sign, addresses, api_port, proxy, pace)
        for controller in self._controllers():
            self.engine.add(controller)
        self.scheduler = Scheduler(
            self.client(SCHEDULER), clock=clock, rng=rng, caches=self.engine.caches,
            resources={t.resource for t in self._stored}, settings=scheduling,
        )  # fmt: skip

    def _controllers(self) -> tuple[Any, ...]:
        """One of each, as new."""
        root_ca, sign, addresses, api_port, proxy, pace = self._made_with
        clock, stored = self.clock, self._stored
        namespaced = [t.resource for t in stored if t.namespaced]
        kinds = {(t.api_version, t.kind): (t.resource, t.namespaced) for t in stored}
        targets = {(t.group, t.kind): t.resource for t in stored}
        return (
            ServiceAccountController(), RootCaController(root_ca), RoleAggregation(),
            AccountTokens(root_ca, self.tokens.keep), TokenTracking(), TokenCleaner(),
            KubernetesServiceController(addresses.primary, api_port),
            DnsServiceController(addresses),
            NamespaceController(namespaced, self._elsewhere),
            GarbageCollector([t.resource for t in stored], kinds),
            ReplicaSetController(), DeploymentController(),
            ReplicationControllerController(), StatefulSetController(), DaemonSetController(),
            EndpointsController(), EndpointSliceController(), EndpointSliceMirroringController(),
            self.load_balancers, ServiceCIDRController(), AddressRepair(),
            PortRepair(self._allocator.ports, self._allocator.take_repaired),
            VolumeBinder(), LocalProvisioner(), VolumeExpand(), ClaimProtection(),
            VolumeProtection(), EphemeralVolumes(),
            JobController(), JobPodReleaser(), CronJobController(), TtlAfterFinishedController(),
            DisruptionController(), StaleDisruptions(),
            NodeHealth(clock, pace), NodeEviction(), TaintEvictionController(clock),
            PodCollector(clock), EndedPods(), NodeTtlController(),
            ResourceQuotaController(namespaced),
            CertificateApprover(), CertificateSigner(sign), CertificateCleaner(),
            Autoscaler(targets), ApiServiceAvailability(self.aggregation.check),
            DanglingFlowSchemas(),
            *([AuthenticationTrust(proxy.trust(root_ca))] if proxy else []),
        )  # fmt: skip

    async def restart_controllers(self, name: str, pause: float) -> None:
        """The controllers of that name end where they are, and *pause* seconds later others begin
        in their place, knowing nothing but what they list, as a process of their own would."""
        await self.engine.remove(name)
        await asyncio.sleep(pause)
        await self.engine.relist()
        for controller in self._controllers():
            if controller.name == name:
                self.engine.add(controller)

    def client(self, user: User) -> Client:
        """A client of this API server, as *user*."""
        return Client(self._line(LocalTransport(self.api, user), user))

    async def _elsewhere(self) -> Elsewhere:
        """What other API servers serve in namespaces."""
        resources, silent = await self.aggregation.namespaced()
        return Elsewhere(tuple(resources), tuple(silent))

    def _controller_client(self, name: str) -> Client:
        if name in ("", TOKENS):
            return self.client(MANAGER)
        own = (
            KubernetesServiceController, DnsServiceController, AddressRepair, PortRepair,
            ApiServiceAvailability, AuthenticationTrust, DanglingFlowSchemas,
            TokenTracking,
        )  # fmt: skip
        if name in (c.name for c in own):
            return self.client(APISERVER)
        return self.client(controller_user(name))

    async def start_api(self) -> None:
        """What every cluster has is there, and calls are answered."""
        await self.api.bootstrap()
        await self.authorizer.start(self.store)
        await self.api.start()

    async def start_control(self) -> None:
        """Controllers and scheduler are synced and at work."""
        await self.engine.start()
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.scheduler.stop()
        await self.engine.stop()
        await self.api.stop()
        await self.authorizer.stop()

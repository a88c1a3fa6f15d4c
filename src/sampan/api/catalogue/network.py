"""The kinds of Services and what stands behind them."""

from __future__ import annotations

from sampan.api.catalogue.parts import ALL, fields
from sampan.api.columns import network
from sampan.api.resource import ResourceType, Rules
from sampan.api.rules import (
    addresses,
    defaults,
    ingress,
    policies,
    prepare,
    service_fields,
    services,
    warnings,
)
from sampan.api.rules import network as rules

CORE = "io.k8s.api.core.v1"
_SERVICE = Rules(
    default=defaults.service,
    prepare_create=service_fields.create,
    prepare_update=service_fields.update,
    validate=services.validate,
    validate_update=services.validate_update,
    validate_status=services.validate_status,
    warn=warnings.service,
)
_ENDPOINTS = Rules(default=defaults.endpoints, validate=rules.endpoints)
_ENDPOINT_SLICE = Rules(
    default=defaults.endpoint_slice,
    validate=rules.endpoint_slice,
    validate_update=rules.endpoint_slice_update,
)
_INGRESS = Rules(
    prepare_create=ingress.create,
    prepare_update=prepare.keep_status,
    validate=ingress.validate,
    validate_status=ingress.validate_status,
)
_INGRESS_CLASS = Rules(
    default=ingress.default_class,
    validate=ingress.validate_class,
    validate_update=ingress.validate_class_update,
)
_NETWORK_POLICY = Rules(default=policies.default, validate=policies.validate)
_IP_ADDRESS = Rules(validate=addresses.ip_address, validate_update=addresses.ip_address_update)
_SERVICE_CIDR = Rules(
    prepare_create=prepare.drop_status,
    prepare_update=prepare.keep_status,
    validate=addresses.service_cidr,
    validate_update=addresses.service_cidr_update,
)

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        kind="Service", plural="services", singular="service", short_names=("svc",),
        categories=ALL, definition=f"{CORE}.Service", subresources=("proxy", "status"),
        fields=fields("spec.clusterIP", "spec.type"), has_status=True, name_rule="label",
        columns=network.SERVICE, rules=_SERVICE,
    ),
    ResourceType(
        kind="Endpoints", plural="endpoints", singular="endpoints", short_names=("ep",),
        definition=f"{CORE}.Endpoints", fields=fields(),
        deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 "
        "EndpointSlice",
        columns=network.ENDPOINTS, rules=_ENDPOINTS,
    ),
    ResourceType(
        group="discovery.k8s.io", kind="EndpointSlice", plural="endpointslices",
        singular="endpointslice", definition="io.k8s.api.discovery.v1.EndpointSlice",
        fields=fields(),
        columns=network.ENDPOINT_SLICE, rules=_ENDPOINT_SLICE,
    ),
    ResourceType(
        group="networking.k8s.io", kind="Ingress", plural="ingresses", singular="ingress",
        short_names=("ing",), subresources=("status",), has_status=True, has_generation=True,
        definition="io.k8s.api.networking.v1.Ingress", fields=fields(),
        columns=network.INGRESS, rules=_INGRESS,
    ),
    ResourceType(
        group="networking.k8s.io", kind="IngressClass", plural="ingressclasses",
        singular="ingressclass", namespaced=False, has_generation=True,
        definition="io.k8s.api.networking.v1.IngressClass", fields=fields(),
        columns=network.INGRESS_CLASS, rules=_INGRESS_CLASS,
    ),
    ResourceType(
        group="networking.k8s.io", kind="NetworkPolicy", plural="networkpolicies",
        singular="networkpolicy", short_names=("netpol",), has_generation=True,
        definition="io.k8s.api.networking.v1.NetworkPolicy", fields=fields(),
        columns=network.NETWORK_POLICY, rules=_NETWORK_POLICY,
    ),
    ResourceType(
        group="networking.k8s.io", kind="IPAddress", plural="ipaddresses",
        singular="ipaddress", short_names=("ip",), namespaced=False, name_rule="path",
        definition="io.k8s.api.networking.v1.IPAddress", fields=fields(),
        columns=network.IP_ADDRESS, rules=_IP_ADDRESS,
    ),
    ResourceType(
        group="networking.k8s.io", kind="ServiceCIDR", plural="servicecidrs",
        singular="servicecidr", namespaced=False, subresources=("status",),
        definition="io.k8s.api.networking.v1.ServiceCIDR", fields=fields(), has_status=True,
        columns=network.SERVICE_CIDR, rules=_SERVICE_CIDR,
    ),
)  # fmt: skip

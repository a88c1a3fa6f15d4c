"""Validation of a whole PodSpec, for pods and for templates."""

from __future__ import annotations

from sampan.api.errors import Cause
from sampan.api.obj import Body
from sampan.api.rules import containers, resources, security, selection
from sampan.api.rules.field import (
    checked,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_supported,
    one_of,
    required,
)
from sampan.api.rules.meta import check_annotations, check_labels
from sampan.api.rules.volumes import volumes
from sampan.lib import names

INT32_MAX = 2**31 - 1
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")


def validate_spec(spec: Body, path: str, *, is_pod: bool) -> list[Cause]:
    """All problems of a PodSpec at *path*. is_pod: not merely a template."""
    found: list[Cause] = []
    known, causes = volumes(f"{path}.volumes", spec.get("volumes") or ())
    found += causes
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        found.append(required(f"{path}.terminationGracePeriodSeconds"))
    main, init = spec.get("containers") or [], spec.get("initContainers") or []
    found += containers.containers(f"{path}.containers", main, known, grace=grace or 0)
    found += containers.init_containers(
        f"{path}.initContainers", init, known, others=main, grace=grace or 0
    )
    found += _host_network(spec, path, is_pod)
    found += one_of(
        f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never")
    )
    found += one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    found += check_labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    found += security.pod(f"{path}.securityContext", spec.get("securityContext"), spec)
    found += selection.affinity(f"{path}.affinity", spec.get("affinity"))
    found += _dns(spec, f"{path}.dnsConfig")
    found += _gates(spec, path)
    found += selection.topology_spread(
        f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or []
    )
    found += _named(spec, path)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        found += in_range(f"{path}.activeDeadlineSeconds", deadline, 1, INT32_MAX)
    found += selection.tolerations(f"{path}.tolerations", spec.get("tolerations") or [])
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        at = f"{path}.hostAliases[{i}]"
        found += checked(f"{at}.ip", alias.get("ip") or "", names.ip)
        for hostname in alias.get("hostnames") or ():
            found += checked(f"{at}.hostnames", hostname, names.dns1123_subdomain)
    found += resources.resource_list(f"{path}.overhead", spec.get("overhead"))
    found += resources.requirements(f"{path}.resources", spec.get("resources"), pod_level=True)
    found += resources.of_whole_pod(f"{path}.resources", spec)
    policy = spec.get("preemptionPolicy")
    if policy is not None:
        supported = ("Never", "PreemptLowerPriority")
        found += one_of(f"{path}.preemptionPolicy", policy, supported)
    os = spec.get("os")
    if os is not None:
        if not os.get("name"):
            found.append(required(f"{path}.os.name", "cannot be empty"))
        elif os["name"] not in ("linux", "windows"):
            found.append(not_supported(f"{path}.os.name", os["name"], ("linux", "windows")))
    return found


def _named(spec: Body, path: str) -> list[Cause]:
    """Fields that hold a name."""
    found: list[Cause] = []
    for field, check in (
        ("serviceAccountName", names.dns1123_subdomain),
        ("nodeName", names.dns1123_subdomain),
        ("hostname", names.dns1123_label),
        ("subdomain", names.dns1123_label),
        ("hostnameOverride", names.dns1123_subdomain),
        ("priorityClassName", names.dns1123_subdomain),
        ("runtimeClassName", names.dns1123_subdomain),
    ):
        if spec.get(field):
            found += checked(f"{path}.{field}", spec[field], check)
    return found


def _host_network(spec: Body, path: str, is_pod: bool) -> list[Cause]:
    found: list[Cause] = []
    if spec.get("hostUsers") is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                found.append(forbidden(f"{path}.{name}", "when `hostUsers` is false"))
    if not spec.get("hostNetwork"):
        return found
    for i, c in enumerate(spec.get("containers") or ()):
        for j, port in enumerate(c.get("ports") or ()):
            host, own = port.get("hostPort") or 0, port.get("containerPort")
            if (is_pod or host) and host != own:
                found.append(
                    invalid(
                        f"{path}.containers[{i}].ports[{j}].hostPort", host,
                        "must match `containerPort` when `hostNetwork` is true",
                    )
                )  # fmt: skip
    return found


def _gates(spec: Body, path: str) -> list[Cause]:
    found: list[Cause] = []
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        at = f"{path}.readinessGates[{i}].conditionType"
        found += checked(at, gate.get("conditionType") or "", names.qualified_name)
    seen: set[str] = set()
    for i, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name") or ""
        found += checked(f"{path}.schedulingGates[{i}]", name, names.qualified_name)
        if name in seen:
            found.append(duplicate(f"{path}.schedulingGates[{i}]", name))
        seen.add(name)
    return found


def _dns(spec: Body, path: str) -> list[Cause]:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            return [
                required(
                    f"{path}.nameservers",
                    "must provide at least one DNS nameserver when `dnsPolicy` is None",
                )
            ]
    if config is None:
        return []
    found: list[Cause] = []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        found.append(
            invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers")
        )
    for i, server in enumerate(servers):
        found += checked(f"{path}.nameservers[{i}]", server, names.ip)
    if len(searches) > 32:
        found.append(
            invalid(f"{path}.searches", searches, "must not have more than 32 search paths")
        )
    if len(" ".join(searches)) > 2048:
        found.append(
            invalid(
                f"{path}.searches", searches,
                "must not have more than 2048 characters (including spaces) in the search list",
            )
        )  # fmt: skip
    for i, search in enumerate(searches):
        text = search.removesuffix(".")
        if text:
            found += checked(f"{path}.searches[{i}]", text, names.dns1123_subdomain)
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            found.append(required(f"{path}.options[{i}]", "must not be empty"))
    return found


def validate_template(template: Body | None, path: str) -> list[Cause]:
    """A PodTemplateSpec (its labels stand at ``template.labels``, as upstream reports them)."""
    if not template:
        return [required(path)]
    meta = template.get("metadata") or {}
    found = check_labels(f"{path}.labels", meta.get("labels"))
    found += check_annotations(f"{path}.annotations", meta.get("annotations"))
    found += validate_spec(template.get("spec") or {}, f"{path}.spec", is_pod=False)
    if (template.get("spec") or {}).get("ephemeralContainers"):
        found.append(
            forbidden(
                f"{path}.spec.ephemeralContainers",
                "ephemeral containers not allowed in pod template",
            )
        )
    return found

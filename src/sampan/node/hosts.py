"""The files every container gets: /etc/hosts, /etc/resolv.conf, /etc/hostname. Pure texts."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.obj import Body
from sampan.lib.addressing import DEFAULT

CLUSTER_DOMAIN = "cluster.local"

_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def hosts_file(
    pod: Body, *, ips: tuple[str, ...], hostname: str, domain: str = "", of_host: str = ""
) -> str:
    """In the kubelet's format. of_host: the node's own file, for pods of its network."""
    if pod["spec"].get("hostNetwork"):
        text = f"# Kubernetes-managed hosts file (host network).\n{of_host}"
    else:
        text = f"# Kubernetes-managed hosts file.\n{_LOCAL}"
        for ip in ips:
            names = f"{hostname}.{domain}\t{hostname}" if domain else hostname
            text += f"{ip}\t{names}\n"
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in aliases:
            text += "\t".join([alias["ip"], *(alias.get("hostnames") or ())]) + "\n"
    return text


# What resolvers take: servers, names to search, characters of one name and of all.
_SERVERS, _SEARCHES, _NAME, _LINE = 3, 32, 253, 2048


def resolv_conf(
    pod: Body, *, of_host: str, dns: Sequence[str] = (DEFAULT.primary.dns,),
    cluster_domain: str = CLUSTER_DOMAIN,
) -> str:  # fmt: skip
    """By dnsPolicy and dnsConfig. of_host: the node's own resolv.conf."""
    return resolver(pod, of_host=of_host, dns=dns, cluster_domain=cluster_domain)[0]


def resolver(
    pod: Body, *, of_host: str, dns: Sequence[str] = (DEFAULT.primary.dns,),
    cluster_domain: str = CLUSTER_DOMAIN,
) -> tuple[str, list[str]]:  # fmt: skip
    """The pod's resolv.conf, and what is told of what had to be left out (DNSConfigForming)."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    if policy == "ClusterFirstWithHostNet":
        policy = "ClusterFirst"
    servers, searches, options = _parse(of_host)
    if policy == "ClusterFirst":
        namespace = pod["metadata"].get("namespace", "")
        servers = [*dns]
        searches = [
            f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain, *searches,
        ]  # fmt: skip
        options = {"ndots": "5"}
    elif policy == "None":
        servers, searches, options = [], [], {}
    own = spec.get("dnsConfig") or {}
    told = []
    asked = list(dict.fromkeys([*servers, *(own.get("nameservers") or ())]))
    servers = asked[:_SERVERS]
    if len(asked) > _SERVERS:
        told.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied "
            f"nameserver line is: {' '.join(servers)}"
        )
    wanted = list(dict.fromkeys([*searches, *(own.get("searches") or ())]))
    searches = _searches(wanted)
    if searches != wanted:
        told.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied "
            f"search line is: {' '.join(searches)}"
        )
    for option in own.get("options") or ():
        options[option["name"]] = option.get("value") or ""
    text = ""
    if searches:
        text += f"search {' '.join(searches)}\n"
    text += "".join(f"nameserver {s}\n" for s in servers)
    if options:
        shown = [f"{k}:{v}" if v else k for k, v in options.items()]
        text += f"options {' '.join(shown)}\n"
    return text, told


def _searches(wanted: list[str]) -> list[str]:
    """As many of them, in order, as resolvers take."""
    kept = [name for name in wanted[:_SEARCHES] if len(name) <= _NAME]
    while len(" ".join(kept)) > _LINE:
        kept.pop()
    return kept


def _parse(text: str) -> tuple[list[str], list[str], dict[str, str]]:
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = [w for w in words[1:] if w != "."]
        elif words[0] == "options":
            for word in words[1:]:
                name, _, value = word.partition(":")
                options[name] = value
    return servers, searches, options

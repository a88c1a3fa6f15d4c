"""Authorization: who may do what. RBAC over the cluster's own roles, and a node's fixed rights.

Order of decision: ``system:masters`` may do everything; nodes what a kubelet does (on objects of
its own where a name tells); everybody else what Roles and ClusterRoles bound to them say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sampan.api.call import Call, User
from sampan.api.errors import StatusError, forbidden
from sampan.api.obj import Body, Key
from sampan.apiserver import bootstrap_roles
from sampan.apiserver.pages import obj_of
from sampan.lib.selectors import SelectorError, from_label_selector
from sampan.store.base import Compacted, Record, Store

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
_KINDS = tuple(
    f"{plural}.{GROUP}"
    for plural in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
)
_CACHE_LIMIT = 20_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is asked. resource is the bare plural; path is set for what is no resource."""

    verb: str
    resource: str = ""
    group: str = ""
    version: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def attributes_of(call: Call) -> Attributes:
    """The question a call of the API raises."""
    plural, _, group = call.resource.partition(".")
    namespace, name = call.namespace, call.name
    if plural == "namespaces" and not group and name:
        namespace = name  # a Role inside a namespace may speak about that namespace
    if not name and call.verb in ("list", "watch", "deletecollection"):
        name = _single_name(call.options.get("fieldSelector", ""))
    return Attributes(
        verb=call.verb,
        resource=plural,
        group=group,
        version=call.version,
        subresource=call.subresource,
        namespace=namespace,
        name=name,
    )


def _single_name(selector: str) -> str:
    """The name a field selector pins (``metadata.name=x``), '' when it does not."""
    for term in selector.split(","):
        field, _, value = term.partition("=")
        if field == "metadata.name" and value:
            return value.removeprefix("=")
    return ""


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


class Rule:
    """One PolicyRule, ready to be asked. Its lists stay lists: they are short, answers are
    remembered, and a control plane has hundreds of rules that nobody ever asks."""

    __slots__ = ("body", "groups", "names", "paths", "resources", "verbs")

    def __init__(self, body: Body) -> None:
        self.body = body
        self.verbs: Sequence[str] = body.get("verbs") or ()
        self.groups: Sequence[str] = body.get("apiGroups") or ()
        self.resources: Sequence[str] = body.get("resources") or ()
        self.names: Sequence[str] = body.get("resourceNames") or ()
        self.paths: Sequence[str] = body.get("nonResourceURLs") or ()

    def allows(self, a: Attributes) -> bool:
        if a.verb not in self.verbs and "*" not in self.verbs:
            return False
        if a.path:
            return any(_path_matches(p, a.path) for p in self.paths)
        if a.group not in self.groups and "*" not in self.groups:
            return False
        if self.names and a.name not in self.names:
            return False
        return _resource_matches(self.resources, a.resource, a.subresource)


def _path_matches(pattern: str, path: str) -> bool:
    if pattern == "*" or pattern == path:
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


def _resource_matches(resources: Sequence[str], resource: str, subresource: str) -> bool:
    if "*" in resources:
        return True
    if not subresource:
        return resource in resources
    return f"{resource}/{subresource}" in resources or f"*/{subresource}" in resources


class _Grant(NamedTuple):
    namespace: str  # '' = everywhere
    rules: tuple[Rule, ...]
    reason: str


class RbacAuthorizer:
    """Answers from an index over the RBAC objects, kept current by ``start``."""

    def __init__(self, registry: object = None) -> None:
        self._objects: dict[str, dict[tuple[str, str], Body]] = {kind: {} for kind in _KINDS}
        self._grants: dict[str, list[_Grant]] | None = None
        self._broken: dict[str, list[tuple[str, str]]] = {}
        self._cache: dict[tuple[str, tuple[str, ...], Attributes], Decision] = {}
        self._node_rules = tuple(Rule(r) for r in bootstrap_roles.NODE_RULES)
        self._tasks: list[asyncio.Task[None]] = []

    # -- keeping current

    async def start(self, store: Store) -> None:
        """Loads the RBAC objects and follows them until ``stop``."""
        for resource in _KINDS:
            since = await self._load(store, resource)
            self._tasks.append(asyncio.create_task(self._follow(store, resource, since)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _load(self, store: Store, resource: str) -> int:
        found = await store.range(Key.prefix(resource))
        self._objects[resource] = {}
        for record in found.records:
            self._take(record)
        self._changed()
        return found.revision

    async def _follow(self, store: Store, resource: str, since: int) -> None:
        while True:
            try:
                watch = store.watch(Key.prefix(resource), since=since)
                try:
                    async for changes in watch:
                        for change in changes:
                            if change.record is None:
                                self.apply(resource, Key.parse(change.key), None)
                            else:
                                self._take(change.record)
                        self._changed()
                finally:
                    watch.close()
                return
            except Compacted:
                since = await self._load(store, resource)
            except Exception:
                log.exception("following %s failed; reading it again", resource)
                await asyncio.sleep(1)
                since = await self._load(store, resource)

    def _take(self, record: Record) -> None:
        obj = obj_of(record)
        self.apply(obj.key.resource, obj.key, obj.body)

    def apply(self, resource: str, key: Key, body: Body | None) -> None:
        """One RBAC object as it is now (None: gone)."""
        if body is None:
            self._objects[resource].pop((key.namespace, key.name), None)
        else:
            self._objects[resource][(key.namespace, key.name)] = body
        self._changed()

    def load(self, bodies: Iterable[Body]) -> None:
        """Takes decoded RBAC objects, as ``apply`` does one by one."""
        for body in bodies:
            meta = body["metadata"]
            resource = f"{body['kind'].lower()}s.{GROUP}"
            self.apply(resource, Key(resource, meta.get("namespace", ""), meta["name"]), body)

    def _changed(self) -> None:
        self._grants = None
        self._cache.clear()

    # -- the index

    def role_rules(self, kind: str, namespace: str, name: str) -> list[Body] | None:
        """The rules of a Role or ClusterRole, aggregated ones included; None when not there."""
        if kind == "Role":
            role = self._objects[f"roles.{GROUP}"].get((namespace, name))
            return None if role is None else list(role.get("rules") or ())
        role = self._objects[f"clusterroles.{GROUP}"].get(("", name))
        if role is None:
            return None
        return self._aggregated(role, frozenset())

    def _aggregated(self, role: Body, seen: frozenset[str]) -> list[Body]:
        rules: list[Body] = list(role.get("rules") or ())
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        name = role["metadata"]["name"]
        for s in selectors:
            try:
                selector = from_label_selector(s)
            except SelectorError:
                continue
            for (_, other), body in self._objects[f"clusterroles.{GROUP}"].items():
                if other == name or other in seen:
                    continue
                if selector.matches(body["metadata"].get("labels") or {}):
                    for rule in self._aggregated(body, seen | {name}):
                        if rule not in rules:
                            rules.append(rule)
        return rules

    def _index(self) -> dict[str, list[_Grant]]:
        grants: dict[str, list[_Grant]] = {}
        broken: dict[str, list[tuple[str, str]]] = {}
        compiled: dict[tuple[str, str, str], tuple[Rule, ...] | None] = {}
        for resource, kind in ((_KINDS[1], "ClusterRoleBinding"), (_KINDS[3], "RoleBinding")):
            for (namespace, name), body in self._objects[resource].items():
                ref = body.get("roleRef") or {}
                ref_kind, ref_name = str(ref.get("kind", "")), str(ref.get("name", ""))
                where = (ref_kind, namespace if ref_kind == "Role" else "", ref_name)
                if where not in compiled:
                    rules = self.role_rules(*where)
                    compiled[where] = None if rules is None else tuple(map(Rule, rules))
                found = compiled[where]
                at = f"{name}/{namespace}" if namespace else name
                for subject in body.get("subjects") or ():
                    for key, text in _subject(subject, namespace):
                        if found is None:
                            missing = f'{ref_kind.lower()}.{GROUP} "{ref_name}" not found'
                            broken.setdefault(key, []).append((namespace, missing))
                            continue
                        reason = (
                            f'RBAC: allowed by {kind} "{at}" of {ref_kind} "{ref_name}" to {text}'
                        )
                        grants.setdefault(key, []).append(_Grant(namespace, found, reason))
        self._grants, self._broken = grants, broken
        return grants

    def _granted(self, user: User) -> Iterable[_Grant]:
        grants = self._grants if self._grants is not None else self._index()
        yield from grants.get(f"u:{user.name}", ())
        for group in user.groups:
            yield from grants.get(f"g:{group}", ())

    # -- questions

    def allowed(self, user: User, attributes: Attributes) -> Decision:
        """Whether *user* may; ``reason`` says why (or, where something is broken, why not)."""
        if MASTERS in user.groups:
            return _MASTER
        key = (user.name, user.groups, attributes)
        known = self._cache.get(key)
        if known is None:
            known = self._decide(user, attributes)
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            self._cache[key] = known
        return known

    def _decide(self, user: User, a: Attributes) -> Decision:
        if NODES in user.groups and user.name.startswith(NODE_PREFIX):
            verdict = self._node(user.name.removeprefix(NODE_PREFIX), a)
            if verdict is not None:
                return verdict
        for grant in self._granted(user):
            if grant.namespace and (a.path or grant.namespace != a.namespace):
                continue
            for rule in grant.rules:
                if rule.allows(a):
                    return Decision(True, grant.reason)
        problems: list[str] = []
        for key in (f"u:{user.name}", *(f"g:{g}" for g in user.groups)):
            for namespace, text in self._broken.get(key, ()):
                if namespace in ("", a.namespace) and text not in problems:
                    problems.append(text)
        if len(problems) > 1:
            return Decision(False, f"RBAC: [{', '.join(problems)}]")
        return Decision(False, f"RBAC: {problems[0]}" if problems else "")

    def _node(self, node: str, a: Attributes) -> Decision | None:
        if not any(rule.allows(a) for rule in self._node_rules):
            return None
        mine = (a.resource == "nodes" and not a.group) or (
            a.resource == "leases" and a.group == "coordination.k8s.io"
        )
        writes = a.verb in ("update", "patch", "delete")
        if mine and writes and a.name and a.name != node:
            kind = "node" if a.resource == "nodes" else "node lease"
            return Decision(
                False, f"can only access {kind} with the same name as the requesting node"
            )
        return _NODE

    def require(self, user: User, attributes: Attributes) -> None:
        """Raises the 403 a client sees unless *user* may."""
        decision = self.allowed(user, attributes)
        if not decision.allowed:
            raise refusal(user, attributes, decision.reason)

    def rules_for(self, user: User, namespace: str) -> list[Body]:
        """Every rule that holds for *user* in *namespace* ('' = cluster-wide ones only)."""
        if MASTERS in user.groups:
            return list(_EVERYTHING)
        rules: list[Body] = []
        if NODES in user.groups and user.name.startswith(NODE_PREFIX):
            rules += bootstrap_roles.NODE_RULES
        for grant in self._granted(user):
            if grant.namespace in ("", namespace):
                rules += [r.body for r in grant.rules]
        return rules


_MASTER = Decision(True, "")
_NODE = Decision(True, "node authorizer")
_EVERYTHING: Sequence[Body] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


def _subject(subject: Body, namespace: str) -> list[tuple[str, str]]:
    kind, name = subject.get("kind"), str(subject.get("name", ""))
    if kind == "User":
        return [(f"u:{name}", f'User "{name}"')]
    if kind == "Group":
        return [(f"g:{name}", f'Group "{name}"')]
    if kind == "ServiceAccount":
        ns = subject.get("namespace") or namespace
        return [(f"u:system:serviceaccount:{ns}:{name}", f'ServiceAccount "{name}/{ns}"')]
    return []


def describe(user: User, a: Attributes) -> str:
    """``User "x" cannot get resource "pods" in API group "" in the namespace "y"``."""
    if a.path:
        return f'User "{user.name}" cannot {a.verb} path "{a.path}"'
    resource = f"{a.resource}/{a.subresource}" if a.subresource else a.resource
    where = f'in the namespace "{a.namespace}"' if a.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {a.verb} resource "{resource}" in API group "{a.group}" {where}'
    )


def refusal(user: User, a: Attributes, reason: str = "") -> StatusError:
    """The 403 for a decision."""
    text = describe(user, a)
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, safe)
    if reason:
        text = f"{text}: {reason}"
    if a.path:
        return StatusError(403, "Forbidden", f"forbidden: {text}", details={})
    return forbidden(f"{a.resource}.{a.group}" if a.group else a.resource, a.name, text)


# -- who may grant what


def check_escalation(
    authorizer: RbacAuthorizer, user: User, *, resource: str, new: Body, old: Body | None
) -> None:
    """Refuses (403) a write of a role or a binding that gives what the writer does not hold.

    resource: one of the four RBAC resources with its group. ``escalate`` on roles and ``bind``
    on the role referred to lift the check, as in Kubernetes.
    """
    if MASTERS in user.groups or resource not in _KINDS:
        return
    plural = resource.partition(".")[0]
    meta = new.get("metadata") or {}
    namespace, name = str(meta.get("namespace") or ""), str(meta.get("name") or "")
    if plural in ("roles", "clusterroles"):
        wanted = list(new.get("rules") or ())
        same_rules = old is not None and (old.get("rules") or []) == wanted
        if same_rules and (old or {}).get("aggregationRule") == new.get("aggregationRule"):
            return
        asked = Attributes(
            verb="escalate", resource=plural, group=GROUP, namespace=namespace, name=name
        )
        if authorizer.allowed(user, asked).allowed:
            return
        if new.get("aggregationRule"):
            if not covers(authorizer.rules_for(user, ""), list(_EVERYTHING))[0]:
                raise forbidden(
                    resource, name, "must have cluster-admin privileges to use the aggregationRule"
                )
    else:
        if old is not None and _grants(old) == _grants(new):
            return
        ref = new.get("roleRef") or {}
        kind, role = str(ref.get("kind", "")), str(ref.get("name", ""))
        asked = Attributes(
            verb="bind",
            resource=f"{kind.lower()}s",
            group=GROUP,
            namespace=namespace,
            name=role,
        )
        if authorizer.allowed(user, asked).allowed:
            return
        found = authorizer.role_rules(kind, namespace, role)
        if found is None:
            lowered = f"{kind.lower()}s.{GROUP}"
            raise StatusError(
                404, "NotFound", f'{lowered} "{role}" not found',
                details={"name": role, "group": GROUP, "kind": f"{kind.lower()}s"},
            )  # fmt: skip
        wanted = found
    ok, missing = covers(authorizer.rules_for(user, namespace), wanted)
    if not ok:
        groups = " ".join(f'"{g}"' for g in user.groups)
        held = "\n".join(_rule_text(r) for r in missing)
        raise forbidden(
            resource,
            name,
            f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions '
            f"not currently held:\n{held}",
        )


def _grants(binding: Body) -> tuple[Any, Any]:
    return binding.get("roleRef"), binding.get("subjects") or []


def covers(held: Sequence[Body], wanted: Sequence[Body]) -> tuple[bool, list[Body]]:
    """Whether every right in *wanted* is in *held*, and the single rights that are not."""
    rules = [Rule(r) for r in held]
    missing: list[Body] = []
    for rule in wanted:
        for single in _singles(rule):
            if not any(_rule_covers(r, single) for r in rules) and single not in missing:
                missing.append(single)
    return not missing, missing


def _singles(rule: Body) -> Iterable[Body]:
    for verb in rule.get("verbs") or ():
        for path in rule.get("nonResourceURLs") or ():
            yield {"verbs": [verb], "nonResourceURLs": [path]}
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                single: Body = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
                names = rule.get("resourceNames") or ()
                if not names:
                    yield single
                for name in names:
                    yield {**single, "resourceNames": [name]}


def _rule_covers(rule: Rule, single: Body) -> bool:
    verb = single["verbs"][0]
    if verb not in rule.verbs and "*" not in rule.verbs:
        return False
    if "nonResourceURLs" in single:
        path = single["nonResourceURLs"][0]
        return any(_path_matches(p, path) for p in rule.paths)
    group, wanted = single["apiGroups"][0], single["resources"][0]
    if group not in rule.groups and "*" not in rule.groups:
        return False
    resource, _, subresource = wanted.partition("/")
    if not _resource_matches(rule.resources, resource, subresource):
        return False
    names = single.get("resourceNames")
    return not rule.names or (names is not None and names[0] in rule.names)


def _rule_text(rule: Body) -> str:
    def listed(values: Iterable[str]) -> str:
        return "[" + " ".join(f'"{v}"' for v in values) + "]"

    parts = [
        f"{label}:{listed(rule[field])}"
        for field, label in (
            ("apiGroups", "APIGroups"),
            ("resources", "Resources"),
            ("resourceNames", "ResourceNames"),
            ("nonResourceURLs", "NonResourceURLs"),
            ("verbs", "Verbs"),
        )
        if rule.get(field)
    ]
    return "{" + ", ".join(parts) + "}"

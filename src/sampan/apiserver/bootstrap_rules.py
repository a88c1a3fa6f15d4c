"""How the roles of a new cluster are written down: verbs and rules in one line each."""

from __future__ import annotations

from sampan.api.obj import Body

RBAC = "rbac.authorization.k8s.io"
READ = "get list watch"
WRITE = "create delete deletecollection patch update"
BOTH = "create delete deletecollection get list patch update watch"


def rule(verbs: str, groups: str, resources: str, *names: str) -> Body:
    """groups and resources are blank-separated; the core group is written ``core``."""
    body: Body = {
        "verbs": verbs.split(),
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        body["resourceNames"] = list(names)
    return body


def paths(verbs: str, paths: str) -> Body:
    return {"verbs": verbs.split(), "nonResourceURLs": paths.split()}


EVENTS = rule("create patch update", "core events.k8s.io", "events")

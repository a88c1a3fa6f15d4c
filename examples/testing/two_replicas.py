"""A small kopf operator: a Deployment labelled ``tier: critical`` never has fewer than two pods."""

import kopf

CRITICAL = {"tier": "critical"}


@kopf.on.create("apps", "v1", "deployments", labels=CRITICAL)
@kopf.on.update("apps", "v1", "deployments", labels=CRITICAL, field="spec.replicas")
def keep_two(spec, patch, logger, **_):
    if spec.get("replicas", 1) < 2:
        logger.info("one pod is not enough for what is critical")
        patch.spec["replicas"] = 2

"""No domain: clock, queues, task supervision, quantities, selectors, ids, TLS, metrics. Nothing here knows Kubernetes kinds."""

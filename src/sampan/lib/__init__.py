"""No domain: clock, queues, quantities, selectors, ids, TLS, metrics. Knows no kinds."""

"""The public test kit: contract suites, builders, the cluster fixture."""

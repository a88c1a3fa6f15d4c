"""Composition roots: all-in-one server, configuration, node start and stop. The only place that wires a local transport."""

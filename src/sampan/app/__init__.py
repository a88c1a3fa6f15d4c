"""Composition roots and configuration: the only place that wires a local transport."""

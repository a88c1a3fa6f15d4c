"""The node agent: pod state machine, runtime, images, volumes, probes, streaming."""

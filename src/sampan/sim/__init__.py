"""Virtual-time worlds: whole control plane on a virtual clock, memory store, fake runtime."""

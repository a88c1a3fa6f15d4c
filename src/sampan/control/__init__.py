"""The reconcile engine: triggers, queue, caches, plan execution, events. Decides nothing itself."""

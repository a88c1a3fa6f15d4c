"""The scheduler: snapshot, queue, cycle, one file per plugin."""

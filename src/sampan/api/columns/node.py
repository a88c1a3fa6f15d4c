"""Columns of RuntimeClass."""

from __future__ import annotations

from sampan.api.columns.cells import AGE, NAME, text

RUNTIME_CLASS = (NAME, text("Handler", "handler", about="Which runtime of a node runs it."), AGE)

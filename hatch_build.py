"""Build hook: puts the schema files derived from kubernetes-validate into the wheel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaHook(BuildHookInterface):
    """Derives src/sampan/schema/data before a wheel (also an editable one) is assembled."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        schema = Path(self.root, "src", "sampan", "schema")
        # Loaded by path: the package itself and its dependencies are not installed here.
        spec = importlib.util.spec_from_file_location("sampan_derive", schema / "derive.py")
        if spec is None or spec.loader is None:
            raise RuntimeError(f"cannot load {schema / 'derive.py'}")
        derive = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = derive
        spec.loader.exec_module(derive)
        derive.write(schema / "data")

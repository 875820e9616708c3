"""Grids in the tests: read as bench reads them, changed, and written again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.grid import yaml_file


def read(path: Path) -> dict[str, Any]:
    """The file's value."""
    return yaml_file.read(path).value


def dump(value: Any) -> str:
    """As YAML in block style, keys in their order."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue()

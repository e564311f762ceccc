"""Training YAMLs as they lie on the disk: sections of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_yaml_sections(path: str | Path) -> dict[str, dict[str, Any]]:
    """Sections by name; one without content is left out. Raises ValueError naming the file, and the section that is none."""
    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected the sections params, io and train")
    for name, section in data.items():
        if not isinstance(section, (dict, type(None))):
            raise ValueError(f"{path}: {name}: expected a section of keys, not {section!r}")
    return {str(name): section for name, section in data.items() if section is not None}


def parse_yaml(text: str) -> Any:
    """Raises ValueError, in one line."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ValueError(f"not YAML ({' '.join(str(error).split())})") from None

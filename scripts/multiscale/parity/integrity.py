"""Checks that a bundle's files are the ones its manifest lists."""

from __future__ import annotations

from pathlib import Path

from multiscale.export.bundle_writer import MANIFEST, read_manifest
from multiscale.export.manifest import FORMAT, FORMAT_VERSION, file_entry


def file_problems(folder: Path) -> list[str]:
    """What is missing or changed, one line each. Raises ValueError if `folder` is not a bundle of this format version."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is not a bundle (no {MANIFEST})")
    manifest = read_manifest(folder)
    found = (manifest.get("format"), manifest.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{folder}: format {found[0]!r} version {found[1]!r}, expected {FORMAT!r} {FORMAT_VERSION}")
    problems = []
    for name, listed in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif file_entry(path) != listed:
            problems.append(f"{name} differs from the manifest's size or SHA-256")
    return problems

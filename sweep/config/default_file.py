"""The sweep file that a project takes where none is named: `[tool.sweep] file` of its pyproject.toml."""

import os
import sys
from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.words import nearest

KEYS = ("file",)


def project_default(folder: Path) -> Path | None:
    """Read `[tool.sweep] file` of the nearest pyproject.toml from a folder upwards; None where that says nothing.

    The path is relative to that pyproject.toml, and returned as seen from the current folder. Raises InputError.
    """
    above = (folder.absolute(), *folder.absolute().parents)
    project = next((path for parent in above if (path := parent / "pyproject.toml").is_file()), None)
    if project is None:
        return None
    tool = _read(project).get("tool", {})
    section = tool.get("sweep", {}) if isinstance(tool, dict) else {}
    if not isinstance(section, dict):
        raise InputError(f"{project}: 'tool.sweep' must be a table: [tool.sweep], and below it file = \"study.yaml\"")
    for key in section:
        if key not in KEYS:
            raise InputError(f"{project}: unknown key '{key}' in [tool.sweep]{nearest(key, KEYS)}")
    if "file" not in section:
        return None
    named = section["file"]
    if not isinstance(named, str) or not named:
        raise InputError(f"{project}: 'file' in [tool.sweep] must name a sweep file, got {named!r}")
    found = project.parent / named
    if not found.is_file():
        raise InputError(f"{project}: 'file' in [tool.sweep] names {named}, and there is no such file")
    return Path(os.path.relpath(found, folder.absolute()))


def _read(project: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not UTF-8 and not TOML are both ValueErrors
        raise InputError(f"{project}: cannot be read: {error}") from error

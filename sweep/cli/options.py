"""The arguments that many commands share."""

import contextlib
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.console import err
from sweep.config.default_file import project_default
from sweep.errors import InputError

DEFAULT_FILE = Path("-")  # where none is named


def chosen(file: Path) -> Path:
    """The sweep file to take where none is named: $SWEEP_FILE, the only one of this folder, or the project's.

    stderr says which. Raises InputError where there is none, or there are several and the project names none.
    """
    if file != DEFAULT_FILE:
        return file
    found = _unnamed()
    err.print(f"sweep file: {found}", highlight=False, soft_wrap=True)
    return found


def _unnamed() -> Path:
    named = os.environ.get("SWEEP_FILE")
    if named:
        return Path(named)
    here = [path for pattern in ("*.yaml", "*.yml") for path in sorted(Path().glob(pattern)) if _is_sweep(path)]
    if len(here) == 1:
        return here[0]
    found = project_default(Path())
    if found:
        return found
    if here:
        words = "Name one, or set SWEEP_FILE, or 'file' in [tool.sweep] of pyproject.toml"
        raise InputError(f"which sweep file: {', '.join(map(str, here))}? {words}")
    raise InputError("there is no sweep file in this folder; name one, or let 'sweep init' write a first one")


def _is_sweep(path: Path) -> bool:
    """Whether a YAML file is a sweep's, which has a grid."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return re.search(r"^grid:", path.read_text(), re.MULTILINE) is not None
    return False


File = Annotated[
    Path,
    typer.Argument(
        help="the sweep's YAML file", callback=chosen, show_default="the only one of this folder, or the project's"
    ),
]
Output = Annotated[Path | None, typer.Option(help="folder for results instead of the file's")]
Data = Annotated[Path | None, typer.Option(help="folder of prepared datasets instead of the file's")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]
ClusterFile = Annotated[str | None, typer.Option(help="another cluster file than the sweep's: its name or path")]
Names = Annotated[list[str] | None, typer.Argument(help="the sweep's YAML file, if not the default; then run ids")]


def split(names: list[str] | None) -> tuple[Path, list[str]]:
    """Tell the sweep file from run ids: it is the first name, and ends in .yaml or .yml."""
    names = names or []
    if names and names[0].endswith((".yaml", ".yml")):
        return Path(names[0]), names[1:]
    return chosen(DEFAULT_FILE), names


ShowScript = Annotated[
    bool, typer.Option("--show-script", help="print the very job scripts, or the commands of local workers")
]

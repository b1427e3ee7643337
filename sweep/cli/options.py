"""The arguments that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_FILE = Path("configs/thesis.yaml")

File = Annotated[Path, typer.Argument(help="the sweep's YAML file")]
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
    return DEFAULT_FILE, names


ShowScript = Annotated[
    bool, typer.Option("--show-script", help="print the very job scripts, or the commands of local workers")
]

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

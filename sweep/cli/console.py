"""Where commands print and ask: results to stdout, everything else to stderr, JSON when asked for."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console

from trainer.records.base import SCHEMA_VERSION

out = Console()
err = Console(stderr=True)


def print_json(**document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, default=_json_value, allow_nan=False))


def _json_value(value: Any) -> str:
    return str(value.isoformat())


def tell(line: str) -> None:
    """Say something beside the result: one line, however long."""
    err.print(line, highlight=False, soft_wrap=True)


def confirm(action: str, details: Sequence[str] = (), *, yes: bool, dry_run: bool) -> None:
    """Say what is about to be done; stop there on a dry run; ask where someone can answer."""
    err.print(f"will {action}" if not dry_run else f"would {action}", highlight=False)
    for line in details:
        err.print(f"  {line}", highlight=False, soft_wrap=True)
    if dry_run:
        raise typer.Exit
    if not yes and sys.stdin.isatty() and not typer.confirm("go on?", default=True, err=True):
        raise typer.Exit

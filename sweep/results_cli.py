"""The commands that turn results into what goes into the thesis. Only parse and print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.config import Sweep, load_sweep
from sweep.console import err
from sweep.errors import InputError, MachineError
from sweep.options import DEFAULT_FILE, Data, File, Output

if TYPE_CHECKING:
    from analysis.study import Study

Mixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="let results of different recipes, datasets, precisions or git states stand together, marked",
    ),
]


def tables(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, allow_mixed: Mixed = False) -> None:
    """Write the chapter's tables from the results there are, as CSV, Markdown and LaTeX."""
    from analysis.tables import write_tables

    sweep = load_sweep(file, output=output, data=data)
    with _making("tables", sweep):
        study = _study(sweep, allow_mixed)
        _told(write_tables(sweep.folder, study), study, "the tables say")


def figures(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, allow_mixed: Mixed = False) -> None:
    """Draw the chapter's figures from the results there are, as PDF and PNG."""
    from analysis.figures import write_figures

    from sweep.display import bar

    sweep = load_sweep(file, output=output, data=data)
    with _making("figures", sweep):
        study = _study(sweep, allow_mixed)
        _told(write_figures(sweep.folder, study, bar(err)), study, "figures/captions.md says")


def add_result_commands(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (tables, figures):
        app.command()(command)


def _study(sweep: Sweep, allow_mixed: bool) -> "Study":
    from sweep.results import read_results

    return read_results(sweep, allow_mixed=allow_mixed)[0]


@contextmanager
def _making(what: str, sweep: Sweep) -> Iterator[None]:
    """Give the errors of making something the words and the exit code of the command line."""
    from analysis.errors import AnalysisError

    try:
        yield
    except AnalysisError as error:
        raise InputError(f"{sweep.name}: {error}") from error
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the {what} could not be written: {error}") from error


def _told(written: list[Path], study: "Study", where: str) -> None:
    """Print the paths, and how many runs are not in them."""
    for path in written:
        print(path)
    if study.missing:
        err.print(
            f"{len(study.missing)} of {len(study.planned)} runs are missing; {where} which and why", highlight=False
        )

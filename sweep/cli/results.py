"""The commands that turn results into what goes into the thesis. Only parse and print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.console import err, out, print_json
from sweep.cli.options import DEFAULT_FILE, Data, File, Json, Output
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError, MachineError

if TYPE_CHECKING:
    from analysis.study import Standing, Study

Reference = Annotated[Path | None, typer.Option(help="published numbers to compare with instead of the thesis's")]
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
        study, _ = _study(sweep, allow_mixed)
        _told(write_tables(sweep.folder, study), study, "the tables say")


def figures(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, allow_mixed: Mixed = False) -> None:
    """Draw the chapter's figures from the results there are, as PDF and PNG."""
    from analysis.figures import write_figures
    from sweep.cli.progress import bar

    sweep = load_sweep(file, output=output, data=data)
    with _making("figures", sweep):
        study, _ = _study(sweep, allow_mixed)
        _told(write_figures(sweep.folder, study, bar(err)), study, "figures/captions.md says")


def compare(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    reference: Reference = None,
    allow_mixed: Mixed = False,
    json_: Json = False,
) -> None:
    """Set the results beside published numbers, with a verdict a table; --json only prints."""
    from analysis.comparison.compare import compare as compared
    from analysis.comparison.files import document, terminal_lines, write_comparison
    from analysis.comparison.published import THESIS, read_reference

    sweep = load_sweep(file, output=output, data=data)
    with _making("comparison", sweep):
        comparison = compared(_study(sweep, allow_mixed)[0], read_reference(reference or THESIS))
        if json_:
            print_json(**document(comparison))
            return
        written = write_comparison(sweep.folder, comparison)
    for line in terminal_lines(comparison):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    err.print(f"{len(written)} files written to {written[0].parent}", highlight=False, soft_wrap=True)


def report(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    reference: Reference = None,
    allow_mixed: Mixed = False,
) -> None:
    """Write everything into one HTML file that needs no network: to open, to mail."""
    from analysis.comparison.compare import compare as compared
    from analysis.comparison.published import THESIS, read_reference
    from analysis.report import write_report
    from sweep.cli.progress import bar

    sweep = load_sweep(file, output=output, data=data)
    with _making("report", sweep):
        study, statuses = _study(sweep, allow_mixed)
        comparison = compared(study, read_reference(reference or THESIS))
        matched = any(table.matched for table in comparison.tables)
        path = write_report(
            sweep.folder,
            study,
            statuses,
            comparison=comparison if matched or reference else None,
            progress=bar(err),
        )
        _told([path], study, "the report says")


def export(
    to: Annotated[str, typer.Option("--to", help="csv, parquet, tensorboard, wandb-offline or mlflow")],
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    folder: Annotated[Path | None, typer.Option(help="where to, instead of <output>/<sweep>/export/TARGET")] = None,
    allow_mixed: Mixed = False,
) -> None:
    """Write the results out for other programs: bests, histories, times, hardware, and which runs are missing."""
    from analysis.export import TARGETS
    from analysis.export import export as exported
    from sweep.cli.progress import bar

    target = next((known for known in TARGETS if known == to), None)
    if target is None:
        raise InputError(f"cannot export to '{to}'; expected one of {', '.join(TARGETS)}")
    sweep = load_sweep(file, output=output, data=data)
    into = folder or sweep.folder / "export" / target
    with _making("export", sweep):
        study, _ = _study(sweep, allow_mixed)
        draw = bar(err)
        exported(study, target, into, lambda done, total: draw("runs", done, total))
        _told([into], study, "missing.csv there says")


def _study(sweep: Sweep, allow_mixed: bool) -> "tuple[Study, list[Standing]]":
    from sweep.results import read_results

    return read_results(sweep, allow_mixed=allow_mixed)


@contextmanager
def _making(what: str, sweep: Sweep) -> Iterator[None]:
    """Turn the errors of making something into the command line's, with its exit codes."""
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

"""Build the report: its content, its internal links, and one file that refers to no other.

Owns <output>/<sweep>/report/index.html and what the page may do: its Content-Security-Policy allows only its own style
and script, by their hashes, and embedded pictures. Jinja escapes every text.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from analysis.errors import AnalysisError
from analysis.report.logs import CONTROLS
from analysis.report.overview import Entry, build_overview
from analysis.report.pictures import chapter_pictures, comparison_pictures
from analysis.report.runs import RunPage, read_page
from analysis.report.standing import SIGNS, duration, looks, moment, sign
from analysis.study import Standing, Study
from analysis.tables import build_tables
from trainer.records.files import write_atomic

if TYPE_CHECKING:
    from analysis.comparison.compare import Comparison

# Called with a stage, the number done and the total.
ProgressReport = Callable[[str, int, int], None]

# With a page for each of 156 runs the file can still be mailed. In a larger sweep only runs that are not done get a
# page, up to this many; the table of runs has the results of the others.
MOST_PAGES = 500
PAGE_ORDER = ("failed", "stale", "stalled", "interrupted", "running", "starting", "cancelled", "queued", "planned")
UNSAFE_IN_ANCHOR = re.compile(r"[^A-Za-z0-9._=+-]")


def write_report(
    folder: Path,
    study: Study,
    statuses: Sequence[Standing],
    *,
    comparison: "Comparison | None" = None,
    progress: ProgressReport | None = None,
) -> Path:
    """Write <folder>/report/index.html and return its path.

    folder: <output>/<sweep>. statuses: of every planned run. Equal input gives equal bytes. Raises AnalysisError for a
    run without a status or two runs in one cell, OSError.
    """
    page = render_report(folder, study, statuses, comparison=comparison, progress=progress)
    path = folder / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page.encode())
    return path


def render_report(
    folder: Path,
    study: Study,
    statuses: Sequence[Standing],
    *,
    comparison: "Comparison | None" = None,
    progress: ProgressReport | None = None,
) -> str:
    """Render the page from the runs' folders; arguments as for write_report."""
    tell = progress or _silent
    entries = _entries(study, statuses)
    chosen = with_page(entries)
    anchors = _anchors(entries)
    figures = chapter_pictures(study, lambda done, of: tell("figures", done, of))
    compared = _compared(comparison, lambda done, of: tell("comparison", done, of)) if comparison else None
    pages: list[RunPage] = []
    for number, entry in enumerate(chosen, start=1):
        pages.append(read_page(folder, entry.run, entry.status, study.results.get(entry.run.run.id)))
        tell("run pages", number, len(chosen))
    paged = {page.run.run.id for page in pages}

    def link(run_id: str) -> str:
        """Link to a run's page or, if it has none, to its row in the table of runs."""
        return f"#{'run' if run_id in paged else 'row'}-{anchors[run_id]}"

    style, script = _asset("style.css"), _asset("script.js")
    document: str = _template().render(
        study=study,
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  # our own files, not anyone's text
        script=Markup(script),  # noqa: S704
        overview=build_overview(study, entries),
        tables=build_tables(study),
        figures=figures,
        comparison=compared,
        entries=entries,
        pages=pages,
        left_out=len(entries) - len(pages),
        most_pages=MOST_PAGES,
        anchors=anchors,
        link=link,
        choices=_choices(entries),
        sign=sign,
        looks=looks,
        moment=moment,
        duration=duration,
        tell_message=lambda message: (message or "").replace(f"{folder}/", ""),
        new_block=_new_block,
        signs=SIGNS,
    )
    return document


def with_page(entries: Sequence[Entry]) -> list[Entry]:
    """Choose the runs that get a page, in plan order: all, or in a large sweep those not done."""
    if len(entries) <= MOST_PAGES:
        return list(entries)
    of_interest = [entry for entry in entries if entry.status.state != "done"]
    of_interest.sort(key=lambda entry: _rank(entry.status.state))
    chosen = {entry.run.run.id for entry in of_interest[:MOST_PAGES]}
    return [entry for entry in entries if entry.run.run.id in chosen]


def _rank(state: str) -> int:
    return PAGE_ORDER.index(state) if state in PAGE_ORDER else len(PAGE_ORDER)


def _entries(study: Study, statuses: Sequence[Standing]) -> list[Entry]:
    by_id = {status.id: status for status in statuses}
    unknown = [run.run.id for run in study.planned if run.run.id not in by_id]
    if unknown:
        raise AnalysisError(f"the report needs the status of every planned run; that of {unknown[0]} is missing")
    return [Entry(run, by_id[run.run.id]) for run in study.planned]


def _anchors(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the anchor of each run: its id if that needs no escaping in a URL, else an escaped, unique form."""
    anchors = {}
    for number, entry in enumerate(entries):
        run_id = entry.run.run.id
        plain = UNSAFE_IN_ANCHOR.sub("_", run_id)
        anchors[run_id] = plain if plain == run_id else f"{plain}~{number}"  # no plain id contains a tilde
    return anchors


def _choices(entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """List the axes to filter by, with their values; variant only if there are variants."""
    runs = [entry.run.run for entry in entries]
    present = {entry.status.state for entry in entries}
    axes = [
        ("architecture", list(dict.fromkeys(run.architecture for run in runs))),
        ("dataset", list(dict.fromkeys(run.dataset for run in runs))),
        ("ratio", [str(ratio) for ratio in sorted({run.ratio for run in runs})]),
        ("seed", [str(seed) for seed in sorted({run.seed for run in runs})]),
        ("variant", list(dict.fromkeys(entry.run.variant for entry in entries if entry.run.variant))),
        ("state", [*(state for state in SIGNS if state in present), *sorted(present.difference(SIGNS))]),
    ]
    return [(axis, values) for axis, values in axes if values]


def _compared(comparison: "Comparison", tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Collect the page's part on the comparison: verdicts, tables, figures."""
    from analysis.comparison import files, verdicts

    return {
        "reference": comparison.reference,
        "verdicts": [verdicts.verdict(table) for table in comparison.tables],
        "not_planned": verdicts.not_planned(comparison),
        "tables": files.tables(comparison),
        "figures": comparison_pictures(comparison, tell),
    }


def _new_block(rows: Sequence[Sequence[str]], number: int) -> bool:
    """Tell whether a row starts another metric than the row above: "Val Acc (S44)", "Epoch (Val Acc) (S42)"."""
    return number > 0 and rows[number][0].rpartition(" (")[0] != rows[number - 1][0].rpartition(" (")[0] != ""


def _policy(style: str, script: str) -> str:
    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {allowed(style)}; script-src {allowed(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analysis.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template("page.html.j2")


def _printable(value: object) -> object:
    """Remove from text what HTML must not contain: control characters and lone surrogates."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return CONTROLS.sub("", value)
    return value


def _silent(_stage: str, _done: int, _of: int) -> None:
    pass

"""A comparison as files, terminal lines and JSON.

Owns the files in <output>/<sweep>/comparison/: comparison-4.5[-variant].{csv,md,tex,pdf,png}, cells.csv (a row per cell
and metric), runs.csv (a row per run and metric), verdicts.md. Printed numbers have three decimals, as means of
published two-decimal values have no more; cells.csv and runs.csv are not rounded, an absent value is an empty field.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.comparison import verdicts
from analysis.comparison.compare import ComparedCell, ComparedTable, Comparison, Gap
from analysis.folder import write_folder
from analysis.formats import FORMATS, Table, csv_text, escape_markdown
from analysis.mixed import MARK
from analysis.spread import Spread
from analysis.tables.metrics import ratio_text
from trainer.records.result import Metric

NONE = "none"  # published without a value, or no result here
NOT_THERE = ""  # the reference lacks the cell
# Two metrics per row: one below the other, the thesis's 13 ratios would need more than a page.
ROW_SETS: tuple[tuple[str, Metric, Metric], ...] = (
    ("Val", "val_accuracy", "val_loss"),
    ("Train", "train_accuracy", "train_loss"),
)
CELL_COLUMNS = (
    *("table", "architecture", "dataset", "variant", "ratio", "reference_ratio", "train_samples", "metric", "planned"),
    *("n", "mean", "std", "published_n", "published_mean", "published_std"),
    *("difference", "standard_error", "degrees", "z", "p", "differs"),
)
RUN_COLUMNS = (
    *("table", "architecture", "dataset", "variant", "ratio", "reference_ratio", "train_samples", "seed", "run"),
    *("metric", "value", "published", "difference", "epoch", "published_epoch", "missing", "cause"),
)
# A variant is key=value; a name without "=" may be the user's own file.
OUR_FILE = re.compile(r"comparison-4\.\d+(-[^=]+=.*)?\.(csv|md|tex|pdf|png)")


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write all files of a comparison and return their paths.

    folder: <output>/<sweep>. Removes files of an earlier call that no longer belong. Equal input gives equal bytes.
    Raises OSError.
    """
    from analysis.comparison.figure import figure_files  # here: loads matplotlib, which the tables do not need

    files: dict[str, bytes] = {"verdicts.md": verdicts_page(comparison).encode()}
    for table in tables(comparison):
        files |= {f"{table.name}.{ending}": render(table).encode() for ending, render in FORMATS.items()}
    for compared in comparison.tables:
        if compared.matched:
            files |= figure_files(_name(compared), compared)
    files["cells.csv"] = csv_text(CELL_COLUMNS, _cell_rows(comparison)).encode()
    files["runs.csv"] = csv_text(RUN_COLUMNS, _run_rows(comparison)).encode()
    return write_folder(folder / "comparison", files, OUR_FILE)


def tables(comparison: Comparison) -> list[Table]:
    """Build the printed table of each group with matched cells."""
    return [_table(comparison, compared) for compared in comparison.tables if compared.matched]


def terminal_lines(comparison: Comparison) -> list[str]:
    """Format a comparison for a terminal: a verdict per table, with its remarks under it."""
    lines: list[str] = []
    for table in comparison.tables:
        lines.append(verdicts.verdict(table))
        lines += [f"  {sentence}" for sentence in _beneath(table)]
    return lines + verdicts.not_planned(comparison)


def verdicts_page(comparison: Comparison) -> str:
    """Format the verdicts and remarks as a page of Markdown."""
    lines = [f"Compared with {comparison.reference}.", ""]
    for table in comparison.tables:
        title, sentence = verdicts.heading(table), verdicts.verdict(table)
        lines.append(f"- **{escape_markdown(title)}**{escape_markdown(sentence.removeprefix(title))}")
        lines += [f"  - {escape_markdown(sentence)}" for sentence in _beneath(table)]
    return "\n".join([*lines, *(f"- {escape_markdown(line)}" for line in verdicts.not_planned(comparison))]) + "\n"


def document(comparison: Comparison) -> dict[str, Any]:
    """Convert a comparison to JSON values; null for what is absent or infinite."""
    return {
        "sweep": comparison.sweep,
        "reference": comparison.reference,
        "tables": [_table_document(table) for table in comparison.tables],
        "not_planned": [{"architecture": pair[0], "dataset": pair[1]} for pair in comparison.not_planned],
    }


def _beneath(table: ComparedTable) -> list[str]:
    return [*verdicts.remarks(table), *verdicts.coverage(table), *table.mixed]


def _name(table: ComparedTable) -> str:
    return f"comparison-{table.number}" + (f"-{table.group.variant}" if table.group.variant else "")


def _table(comparison: Comparison, table: ComparedTable) -> Table:
    by_cell = {(cell.ratio, cell.metric): cell for cell in table.cells}
    ratios = list(dict.fromkeys(cell.ratio for cell in table.cells))
    rows = [
        (
            title,
            ratio_text(ratio),
            f"{by_cell[ratio, accuracy].train_samples:,}",
            *_printed(by_cell[ratio, accuracy]),
            *_printed(by_cell[ratio, loss]),
        )
        for title, accuracy, loss in ROW_SETS
        for ratio in ratios
    ]
    caption = (
        f"Best metrics of {table.group.title} beside the published ones of {comparison.reference}, by our dataset "
        "ratio and its training images."
    )
    return Table(
        name=_name(table),
        number=f"{table.number} (comparison)",
        caption=f"{caption} {MARK}" if table.mixed else caption,
        header=(
            *("Set", "Ratio", "Images"),
            *(f"{metric}: {what}" for metric in ("Acc", "Loss") for what in ("ours", "published", "diff.", "z")),
        ),
        rows=tuple(rows),
        notes=(verdicts.verdict(table), *verdicts.how_to_read(table), *_beneath(table)),
    )


def _printed(cell: ComparedCell) -> tuple[str, str, str, str]:
    of_planned = "" if cell.ours is None or cell.ours.n == cell.planned else f" of {cell.planned}"
    ours = _spread_text(cell.ours, of_planned) if cell.ours else NONE
    if cell.reference_ratio is None:
        return ours, NOT_THERE, NOT_THERE, NOT_THERE
    published = _spread_text(cell.published, "") if cell.published else NONE
    if cell.difference is None:
        return ours, published, NOT_THERE, NOT_THERE
    z = "" if cell.difference.z is None else f"{cell.difference.z:.2f}"
    return ours, published, _signed(cell.difference.value), z + (verdicts.MARK_DIFFERS if cell.differs else "")


def _spread_text(found: Spread, of: str) -> str:
    std = "" if found.std is None else f" ± {found.std:.3f}"
    return f"{_three_decimals(found.mean)}{std} ({found.n}{of})"


def _three_decimals(value: float) -> str:
    printed = f"{value:.3f}"
    return "0.000" if printed == "-0.000" else printed


def _signed(value: float) -> str:
    printed = f"{value:+.3f}"
    return "0.000" if printed[1:] == "0.000" else printed


def _cell_rows(comparison: Comparison) -> Iterable[Sequence[object]]:
    for table in comparison.tables:
        for cell in table.cells:
            ours, published = cell.ours or (0, None, None), cell.published or (0, None, None)
            yield (
                *(table.number, *table.group, cell.ratio, cell.reference_ratio, cell.train_samples, cell.metric),
                *(cell.planned, *ours, *published),
                *map(_finite, cell.difference or (None,) * 5),
                cell.differs,
            )


def _run_rows(comparison: Comparison) -> Iterable[Sequence[object]]:
    for table in comparison.tables:
        for cell in table.cells:
            for run in cell.runs:
                best = getattr(run.result.best, cell.metric) if run.result else None
                published, published_epoch = (
                    (run.published.best, run.published.epoch) if run.published else (None, None)
                )
                run_id = run.planned.run.id if run.planned else None
                yield (
                    *(table.number, *table.group, cell.ratio, cell.reference_ratio, cell.train_samples),
                    *(run.seed, run_id, cell.metric, best.value if best else None, published),
                    best.value - published if best and published is not None else None,
                    *(best.epoch if best else None, published_epoch),
                    " ".join(table.missing.get(run_id or "", "").split()),
                    run.published.cause if run.published else "",
                )


def _table_document(table: ComparedTable) -> dict[str, Any]:
    return {
        "table": table.number,
        "published_tables": list(table.published_tables),
        **table.group._asdict(),
        "verdict": verdicts.verdict(table),
        "remarks": [*verdicts.remarks(table), *table.mixed],
        "cells": [_cell_document(cell) for cell in table.cells],
        "gaps": [_gap_document(gap) for gap in table.gaps],
        "missing": [
            {"run": run.run.id, "reason": table.missing[run.run.id]}
            for run in table.matched_runs
            if run.run.id in table.missing
        ],
        "ratios_not_planned": list(table.not_planned),
    }


def _cell_document(cell: ComparedCell) -> dict[str, Any]:
    difference = cell.difference
    return {
        "ratio": cell.ratio,
        "reference_ratio": cell.reference_ratio,
        "train_samples": cell.train_samples,
        "metric": cell.metric,
        "planned": cell.planned,
        "ours": cell.ours._asdict() if cell.ours else None,
        "published": cell.published._asdict() if cell.published else None,
        "difference": difference.value if difference else None,
        "standard_error": difference.standard_error if difference else None,
        "degrees": _finite(difference.degrees) if difference else None,
        "z": difference.z if difference else None,
        "p": difference.p if difference else None,
        "differs": cell.differs,
        "runs": [
            {
                "seed": run.seed,
                "run": run.planned.run.id if run.planned else None,
                "ours": getattr(run.result.best, cell.metric).model_dump() if run.result else None,
                "published": {"value": run.published.best, "epoch": run.published.epoch} if run.published else None,
            }
            for run in cell.runs
        ],
    }


def _gap_document(gap: Gap) -> dict[str, Any]:
    return {
        "ratio": gap.ratio,
        "reference_ratio": gap.reference_ratio,
        "train_samples": gap.train_samples,
        "seeds": list(gap.seeds),
        "metrics": list(gap.metrics),
        "cause": gap.cause or None,
        "ours": {metric: found._asdict() for metric, found in gap.ours.items()},
    }


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None

"""The chapter's tables from the result files: 4.1-4.4 what was trained and on what, 4.5 and on the best metrics.

Owns the tables' shape, number formats and what they say of a missing run: a cell whose run is planned and has no usable
result prints -inf (accuracy), inf (loss) or nan (anything else), and the notes under the table name the run and the
reason; a cell that the plan does not hold is empty. Owns the files <output>/<sweep>/tables/table-4.N[-variant].*.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from analysis import chapter
from analysis.formats import FORMATS, Table
from analysis.load import AnalysisError, gpu_names, load_results
from trainer.data.catalog import DATASETS
from trainer.files import write_atomic
from trainer.records import BestValue, Hardware, Metric, PlannedRun, Result

METRIC_ROWS: tuple[tuple[str, Metric], ...] = (
    ("Val Acc", "val_accuracy"),
    ("Val Loss", "val_loss"),
    ("Train Acc", "train_accuracy"),
    ("Train Loss", "train_loss"),
)
UNKNOWN = "nan"
NOT_PLANNED = ""
NAMED_PER_REASON = 40  # one table of the thesis's grid has 39 runs
REASON_CHARACTERS = 240
# A variant is key=value; a name without "=" may be the user's own file beside ours.
OUR_FILE = re.compile(r"table-4\.\d+(-[^=]+=.*)?\.(csv|md|tex)")


def write_tables(folder: Path, planned: Sequence[PlannedRun], missing: Mapping[str, str]) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX; give the paths in table order.

    folder: <output>/<sweep>. missing: run id to the reason why its result, if any, does not count; a run without a
    readable result joins them. Table files of an earlier call that no longer belong are removed. Equal input gives
    equal bytes. Raises AnalysisError for an empty plan, OSError.
    """
    usable, unreadable = load_results(folder, [run for run in planned if run.run.id not in missing])
    tables = build_tables(planned, usable, {**unreadable, **missing})
    target = folder / "tables"
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for table in tables:
        for ending, render in FORMATS.items():
            written.append(target / f"{table.name}.{ending}")
            write_atomic(written[-1], render(table).encode())
    for path in set(target.iterdir()).difference(written):
        if OUR_FILE.fullmatch(path.name):
            path.unlink()
    return written


def build_tables(
    planned: Sequence[PlannedRun], results: Mapping[str, Result], missing: Mapping[str, str]
) -> list[Table]:
    """Make all tables of a plan, in order. Each planned run is in results or in missing, by its id."""
    if not planned:
        raise AnalysisError("the plan holds no runs, so there are no tables")
    tables = [
        _parameters(planned, results, missing),
        _samples(planned, results),
        _normalization(planned),
        _hardware(planned, results, missing),
    ]
    for pair, number in chapter.number_pairs((run.run.architecture, run.run.dataset) for run in planned).items():
        of_pair = [run for run in planned if (run.run.architecture, run.run.dataset) == pair]
        for variant in dict.fromkeys(run.variant for run in of_pair):
            of_variant = [run for run in of_pair if run.variant == variant]
            tables.append(_metrics(f"4.{number}", of_variant, results, missing))
    return tables


def missing_note(runs: Sequence[PlannedRun], missing: Mapping[str, str]) -> tuple[str, ...]:
    """Say which of these runs are missing and why, equal reasons together; no note if none is."""
    by_reason: dict[str, list[str]] = {}
    for run in runs:
        if run.run.id in missing:
            by_reason.setdefault(_one_line(missing[run.run.id]), []).append(run.run.id)
    if not by_reason:
        return ()
    return (f"Missing: {'; '.join(f'{_names(ids)} ({reason})' for reason, ids in by_reason.items())}.",)


def _parameters(planned: Sequence[PlannedRun], results: Mapping[str, Result], missing: Mapping[str, str]) -> Table:
    architectures = chapter.in_order((run.run.architecture for run in planned), chapter.PARAMETER_COLUMNS)
    datasets = chapter.in_order((run.run.dataset for run in planned), chapter.PARAMETER_ROWS)
    notes: list[str] = []

    def cell(dataset: str, architecture: str) -> str:
        runs = [run for run in planned if (run.run.architecture, run.run.dataset) == (architecture, dataset)]
        counts = {results[run.run.id].parameters for run in runs if run.run.id in results}
        if runs and not counts:
            notes.extend(missing_note(runs, missing))
        return _distinct(counts) if counts else UNKNOWN if runs else NOT_PLANNED

    rows = tuple(
        (chapter.dataset_title(dataset), *(cell(dataset, architecture) for architecture in architectures))
        for dataset in datasets
    )
    return Table(
        name="table-4.1",
        number="4.1",
        caption=chapter.parameters_caption(architectures, datasets),
        header=(
            "Dataset",
            *(f"{chapter.architecture_title(architecture)} Parameters" for architecture in architectures),
        ),
        rows=rows,
        notes=tuple(notes),
    )


def _samples(planned: Sequence[PlannedRun], results: Mapping[str, Result]) -> Table:
    datasets = chapter.in_order((run.run.dataset for run in planned), chapter.DATASET_ROWS)
    ratios = sorted({run.run.ratio for run in planned})
    from_plan: list[str] = []

    def cell(dataset: str, ratio: float) -> str:
        runs = [run for run in planned if (run.run.dataset, run.run.ratio) == (dataset, ratio)]
        trained_on = {results[run.run.id].data.train_samples for run in runs if run.run.id in results}
        if runs and not trained_on:
            from_plan.append(f"{chapter.dataset_title(dataset)} at {_ratio(ratio)}")
        return _distinct(trained_on or {run.train_samples for run in runs})

    rows = tuple(
        (f"Training Samples ({chapter.dataset_title(dataset)})", *(cell(dataset, ratio) for ratio in ratios))
        for dataset in datasets
    )
    return Table(
        name="table-4.2",
        number="4.2",
        caption=chapter.samples_caption(datasets),
        header=("Sampleset / Ratio", *map(_ratio, ratios)),
        rows=rows,
        notes=(f"From the plan, as no finished run tells: {', '.join(from_plan)}.",) if from_plan else (),
    )


def _normalization(planned: Sequence[PlannedRun]) -> Table:
    datasets = chapter.in_order((run.run.dataset for run in planned), chapter.DATASET_ROWS)
    rows = tuple(
        (chapter.dataset_title(name), _channels(DATASETS[name].mean), _channels(DATASETS[name].std))
        if name in DATASETS
        else (name, UNKNOWN, UNKNOWN)
        for name in datasets
    )
    unknown = [name for name in datasets if name not in DATASETS]
    return Table(
        name="table-4.3",
        number="4.3",
        caption=chapter.normalization_caption(datasets),
        header=("Dataset", "Mean", "Standard Deviation"),
        rows=rows,
        notes=(f"Not in the catalogue of datasets: {', '.join(unknown)}.",) if unknown else (),
        text_columns=3,
    )


def _hardware(planned: Sequence[PlannedRun], results: Mapping[str, Result], missing: Mapping[str, str]) -> Table:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    partial: list[str] = []
    for seed in sorted({run.run.seed for run in planned}):
        runs = [run for run in planned if run.run.seed == seed]
        used = Counter(_processors(results[run.run.id].hardware) for run in runs if run.run.id in results)
        rows += [(str(seed), *processors) for processors in sorted(used)] or [(str(seed), UNKNOWN, UNKNOWN)]
        if len(used) > 1:
            counts = ", ".join(f"{used[row]} on {row[0]} with {row[1]}" for row in sorted(used))
            notes.append(f"Seed {seed} ran on different hardware: {counts}.")
        if not used:
            notes.extend(missing_note(runs, missing))
        elif used.total() < len(runs):
            partial.append(f"seed {seed} from {used.total():,} of {len(runs):,} runs")
    if partial:
        notes.append(f"Known so far: {', '.join(partial)}; the tables from 4.5 on name the others and say why.")
    return Table(
        name="table-4.4",
        number="4.4",
        caption=chapter.hardware_caption(),
        header=("Seed", "CPU", "GPU"),
        rows=tuple(rows),
        notes=tuple(notes),
        text_columns=3,
    )


def _metrics(
    number: str, runs: Sequence[PlannedRun], results: Mapping[str, Result], missing: Mapping[str, str]
) -> Table:
    """Make the table of one architecture, dataset and variant; runs are all of it, in plan order."""
    first = runs[0]
    cells = {(run.run.seed, run.run.ratio): run.run.id for run in runs}
    if len(cells) < len(runs):
        raise AnalysisError(f"table {number}: several runs for one ratio and seed: {_names([r.run.id for r in runs])}")
    seeds = sorted({run.run.seed for run in runs})
    ratios = sorted({run.run.ratio for run in runs})

    def row(label: str, seed: int, metric: Metric, show: Callable[[BestValue], str], absent: str) -> tuple[str, ...]:
        def cell(ratio: float) -> str:
            run_id = cells.get((seed, ratio))
            if run_id is None:
                return NOT_PLANNED
            return show(getattr(results[run_id].best, metric)) if run_id in results else absent

        return (f"{label} (S{seed})", *map(cell, ratios))

    rows: list[tuple[str, ...]] = []
    for title, metric in METRIC_ROWS:
        absent = "-inf" if metric.endswith("accuracy") else "inf"
        rows += [row(title, seed, metric, lambda best: _two_decimals(best.value), absent) for seed in seeds]
        rows += [row(f"Epoch ({title})", seed, metric, lambda best: str(best.epoch), UNKNOWN) for seed in seeds]
    return Table(
        name=f"table-{number}" + (f"-{first.variant}" if first.variant else ""),
        number=number,
        caption=chapter.metrics_caption(first.run.architecture, first.run.dataset, first.variant, len(seeds)),
        header=("Metric / Dataset Ratio", *map(_ratio, ratios)),
        rows=tuple(rows),
        notes=missing_note(runs, missing),
    )


def _processors(hardware: Hardware) -> tuple[str, str]:
    """Give (CPU, GPU) as table 4.4 prints them; the GPUs of a node that a run on its CPU left idle do not count."""
    if hardware.device.startswith("cpu"):
        return hardware.cpu, "none (CPU only)"
    return hardware.cpu, gpu_names(hardware.gpus) or hardware.device


def _two_decimals(value: float) -> str:
    printed = f"{value:.2f}"
    return "0.00" if printed == "-0.00" else printed


def _ratio(ratio: float) -> str:
    """Write a ratio as the chapter does, 0.075 and 1.0: all its digits, never with an exponent."""
    return str(ratio) if "e" not in str(ratio) else f"{ratio:.20f}".rstrip("0")


def _channels(values: Sequence[float]) -> str:
    """Write one number a channel, all with the decimals of the longest: [0.2023, 0.1994, 0.2010]."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return f"[{', '.join(f'{value:.{decimals}f}' for value in values)}]"


def _distinct(counts: Iterable[int]) -> str:
    """Write a count with its thousands grouped; all of them where runs that should agree do not."""
    return " / ".join(f"{count:,}" for count in sorted(counts))


def _names(ids: Sequence[str]) -> str:
    beyond = len(ids) - NAMED_PER_REASON
    return ", ".join(ids[:NAMED_PER_REASON]) + (f" and {beyond} more" if beyond > 0 else "")


def _one_line(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= REASON_CHARACTERS else f"{words[: REASON_CHARACTERS - 3]}..."

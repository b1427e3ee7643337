"""The chapter's tables. Builds 4.1-4.4 (what was trained, and on what) and writes all of them.

Owns the files in <output>/<sweep>/tables/. `analysis.tables.metrics` builds the tables from 4.5 on.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis import chapter
from analysis.folder import write_folder
from analysis.formats import FORMATS, Table
from analysis.load import gpu_names
from analysis.missing import missing_note
from analysis.mixed import named
from analysis.resumed import crossed
from analysis.study import Study
from analysis.tables.metrics import NOT_PLANNED, UNKNOWN, means_table, metrics_table, ratio_text
from analysis.tables.tidy import tidy_files
from trainer.data.catalog import DATASETS
from trainer.records.result import Hardware

# A variant is key=value; a name without "=" may be the user's own file.
OUR_FILE = re.compile(r"table-4\.\d+(-mean)?(-[^=]+=.*)?\.(csv|md|tex)")


def write_tables(folder: Path, study: Study) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX, then summary.csv and provenance.csv; return paths in this order.

    folder: <output>/<sweep>. Removes tables of an earlier call that no longer belong. Equal input gives equal bytes.
    Raises AnalysisError for two runs in one cell, OSError.
    """
    files = {
        f"{table.name}.{ending}": render(table).encode()
        for table in build_tables(study)
        for ending, render in FORMATS.items()
    }
    files |= {f"{name}.csv": text.encode() for name, text in tidy_files(study).items()}
    return write_folder(folder / "tables", files, OUR_FILE)


def build_tables(study: Study) -> list[Table]:
    tables = [_parameters(study), _samples(study), _normalization(study), _hardware(study)]
    numbers = chapter.number_pairs((group.architecture, group.dataset) for group in study.groups)
    for group in study.groups:
        number = numbers[group.architecture, group.dataset]
        tables += [metrics_table(study, group, number), means_table(study, group, number)]
    return tables


def _parameters(study: Study) -> Table:
    architectures = chapter.in_order((run.run.architecture for run in study.planned), chapter.PARAMETER_COLUMNS)
    datasets = chapter.in_order((run.run.dataset for run in study.planned), chapter.PARAMETER_ROWS)
    notes: list[str] = []

    def cell(dataset: str, architecture: str) -> str:
        runs = [run for run in study.planned if (run.run.architecture, run.run.dataset) == (architecture, dataset)]
        counts = {study.results[run.run.id].parameters for run in runs if run.run.id in study.results}
        if runs and not counts:
            notes.extend(missing_note(runs, study.missing))
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


def _samples(study: Study) -> Table:
    datasets = chapter.in_order((run.run.dataset for run in study.planned), chapter.DATASET_ROWS)
    ratios = sorted({run.run.ratio for run in study.planned})
    from_plan: list[str] = []

    def cell(dataset: str, ratio: float) -> str:
        runs = [run for run in study.planned if (run.run.dataset, run.run.ratio) == (dataset, ratio)]
        trained_on = {study.results[run.run.id].data.train_samples for run in runs if run.run.id in study.results}
        if runs and not trained_on:
            from_plan.append(f"{chapter.dataset_title(dataset)} at {ratio_text(ratio)}")
        return _distinct(trained_on or {run.train_samples for run in runs})

    rows = tuple(
        (f"Training Samples ({chapter.dataset_title(dataset)})", *(cell(dataset, ratio) for ratio in ratios))
        for dataset in datasets
    )
    return Table(
        name="table-4.2",
        number="4.2",
        caption=chapter.samples_caption(datasets),
        header=("Sampleset / Ratio", *map(ratio_text, ratios)),
        rows=rows,
        notes=(f"From the plan, as no finished run tells: {', '.join(from_plan)}.",) if from_plan else (),
    )


def _normalization(study: Study) -> Table:
    datasets = chapter.in_order((run.run.dataset for run in study.planned), chapter.DATASET_ROWS)
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


def _hardware(study: Study) -> Table:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    partial: list[str] = []
    for seed in sorted({run.run.seed for run in study.planned}):
        runs = [run for run in study.planned if run.run.seed == seed]
        used = Counter(_processors(study.results[run.run.id].hardware) for run in runs if run.run.id in study.results)
        rows += [(str(seed), *processors) for processors in sorted(used)] or [(str(seed), UNKNOWN, UNKNOWN)]
        if len(used) > 1:
            counts = ", ".join(f"{used[row]} on {row[0]} with {row[1]}" for row in sorted(used))
            notes.append(f"Seed {seed} ran on different hardware: {counts}.")
        if not used:
            notes.extend(missing_note(runs, study.missing))
        elif used.total() < len(runs):
            partial.append(f"seed {seed} from {used.total():,} of {len(runs):,} runs")
    changed = [
        run.run.id for run in study.planned if run.run.id in study.results and crossed(study.results[run.run.id])
    ]
    if changed:
        notes.append(f"Went on on something else than they began on (provenance.csv has what): {named(changed)}.")
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


def _processors(hardware: Hardware) -> tuple[str, str]:
    """Return (CPU, GPU) as table 4.4 prints them; GPUs that a run on the CPU left idle are not named."""
    if hardware.device.startswith("cpu"):
        return hardware.cpu, "none (CPU only)"
    return hardware.cpu, gpu_names(hardware.gpus) or hardware.device


def _channels(values: Sequence[float]) -> str:
    """Format a number per channel, all with as many decimals as the longest: [0.2023, 0.1994, 0.2010]."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return f"[{', '.join(f'{value:.{decimals}f}' for value in values)}]"


def _distinct(counts: Iterable[int]) -> str:
    """Format a count with thousands grouped; all counts where runs that should agree do not."""
    return " / ".join(f"{count:,}" for count in sorted(counts))

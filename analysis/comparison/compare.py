"""Match our results with published ones, cell by cell, and compute how far apart they are.

Two cells match if architecture, dataset and number of training images are equal: 0.4 of 2,500 images matches 0.02 of
50,000. The ratio decides only where the images are unknown: a dataset outside the catalogue, in a file without the
column train_samples. Pure; words are in `verdicts`, files in `files`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from analysis import chapter
from analysis.comparison.difference import Difference, difference, those_that_differ
from analysis.comparison.published import Published, Reference
from analysis.mixed import mixed_note
from analysis.spread import Spread, spread
from analysis.study import Cell, Group, Study
from analysis.tables.metrics import METRIC_ROWS
from trainer.data.catalog import DATASETS
from trainer.records.plan import PlannedRun
from trainer.records.recipe import Recipe
from trainer.records.result import METRICS, Metric, Result


@dataclass(frozen=True)
class ComparedRun:
    """One seed of a cell: the planned run, its result and the published row, each if there is one."""

    seed: int | None
    planned: PlannedRun | None
    result: Result | None
    published: Published | None


@dataclass(frozen=True)
class ComparedCell:
    """One cell and metric. reference_ratio: None if the reference lacks the cell.

    ours, published: over the seeds that have a value, None if none has. differs: beyond what seeds, rounding and the
    number of cells explain.
    """

    ratio: float
    reference_ratio: float | None
    train_samples: int
    planned: int
    metric: Metric
    ours: Spread | None
    published: Spread | None
    difference: Difference | None
    differs: bool
    runs: tuple[ComparedRun, ...]


@dataclass(frozen=True)
class Gap:
    """Seeds of a cell that were published without a value for some metrics, or for any metric (whole).

    ours: our values for the same seeds and metrics; empty without results.
    """

    ratio: float
    reference_ratio: float
    train_samples: int
    seeds: tuple[int | None, ...]
    metrics: tuple[Metric, ...]
    whole: bool
    cause: str
    ours: Mapping[Metric, Spread]

    @property
    def filled(self) -> int:
        """The number of these seeds for which we have values."""
        return next(iter(self.ours.values())).n if self.ours else 0


@dataclass(frozen=True)
class ComparedTable:
    """One group compared with the published rows of its architecture and dataset.

    number: of our table, "4.5". published_tables: as named in the reference, empty if it lacks the pair. cells: every
    planned cell and metric, by ratio. not_planned: published ratios that the plan lacks.
    """

    group: Group
    number: str
    published_tables: tuple[str, ...]
    cells: tuple[ComparedCell, ...]
    gaps: tuple[Gap, ...]
    not_planned: tuple[float, ...]
    missing: Mapping[str, str]
    val_samples: tuple[int, ...]
    recipe_differences: tuple[str, ...]
    mixed: tuple[str, ...]

    @cached_property
    def matched(self) -> list[ComparedCell]:
        """The cells that the reference holds, with or without values."""
        return [cell for cell in self.cells if cell.reference_ratio is not None]

    @cached_property
    def comparable(self) -> list[ComparedCell]:
        """The cells with values on both sides."""
        return [cell for cell in self.cells if cell.difference is not None]

    @cached_property
    def matched_runs(self) -> list[PlannedRun]:
        """The planned runs of the matched cells."""
        first = [cell for cell in self.matched if cell.metric == METRICS[0]]
        return [run.planned for cell in first for run in cell.runs if run.planned is not None]

    @property
    def official_val_samples(self) -> int | None:
        """The size of the dataset's official validation set; None if the catalogue lacks the dataset."""
        dataset = DATASETS.get(self.group.dataset)
        return dataset.val_samples if dataset else None


@dataclass(frozen=True)
class Comparison:
    """A sweep compared with a reference. not_planned: published (architecture, dataset) pairs that the plan lacks."""

    sweep: str
    reference: str
    tables: tuple[ComparedTable, ...]
    not_planned: tuple[tuple[str, str], ...]


def compare(study: Study, reference: Reference) -> Comparison:
    """Compare every group of a study with the published rows of its architecture and dataset.

    Raises AnalysisError if two runs of the study share a cell and seed.
    """
    numbers = chapter.number_pairs((group.architecture, group.dataset) for group in study.groups)
    return Comparison(
        sweep=study.name,
        reference=reference.name,
        tables=tuple(_compare_group(study, group, numbers, reference) for group in study.groups),
        not_planned=tuple(pair for pair in reference.pairs if pair not in numbers),
    )


def _compare_group(
    study: Study, group: Group, numbers: Mapping[tuple[str, str], int], reference: Reference
) -> ComparedTable:
    pair = group.architecture, group.dataset
    published = reference.pairs.get(pair, {})
    ours = study.cells(group)
    results = [result for cell in ours for result in cell.results]
    matched: dict[tuple[str, float], None] = {}
    cells: list[ComparedCell] = []
    gaps: list[Gap] = []
    for cell in ours:
        size = next((size for size in _sizes(cell) if size in published), None)
        rows = published[size] if size else []
        if size:
            matched[size] = None
        cells += [_compare_cell(cell, rows, metric, reference) for _, metric in METRIC_ROWS]
        gaps += _gaps(cell, rows)
    differ = those_that_differ([cell.difference.p if cell.difference else None for cell in cells])
    return ComparedTable(
        group=group,
        number=f"4.{numbers[pair]}",
        published_tables=tuple(dict.fromkeys(row.table for rows in published.values() for row in rows if row.table)),
        cells=tuple(replace(cell, differs=differs) for cell, differs in zip(cells, differ, strict=True)),
        gaps=tuple(gaps),
        not_planned=tuple(sorted(rows[0].ratio for size, rows in published.items() if size not in matched)),
        missing={run.run.id: study.missing[run.run.id] for run in study.groups[group] if run.run.id in study.missing},
        val_samples=tuple(sorted({result.data.val_samples for result in results})),
        recipe_differences=_recipe_differences(study.groups[group]),
        mixed=mixed_note(results),
    )


def _sizes(cell: Cell) -> tuple[tuple[str, float], tuple[str, float]]:
    """List the sizes at which a published cell matches; a row has its ratio as size only if its images are unknown."""
    return ("images", cell.train_samples), ("ratio", cell.ratio)


def _compare_cell(cell: Cell, rows: Sequence[Published], metric: Metric, reference: Reference) -> ComparedCell:
    of_metric = [row for row in rows if row.metric == metric]
    published = [row.best for row in of_metric if row.best is not None]
    ours = cell.best(metric)
    compared = None
    if ours and published:
        step = reference.rounding_steps[of_metric[0].architecture, of_metric[0].dataset, metric]
        sampling_variance = _sampling_variance(cell, metric, published)
        compared = difference(ours, published, step, sampling_variance or 0.0)
        if sampling_variance is None:
            compared = compared._replace(p=None)
    return ComparedCell(
        ratio=cell.ratio,
        reference_ratio=rows[0].ratio if rows else None,
        train_samples=cell.train_samples,
        planned=len(cell.planned),
        metric=metric,
        ours=spread(ours) if ours else None,
        published=spread(published) if published else None,
        difference=compared,
        differs=False,
        runs=tuple(_runs(cell, of_metric)),
    )


def _sampling_variance(cell: Cell, metric: Metric, published: Sequence[float]) -> float | None:
    """Return the variance due to the validation images: 0 if both sides use the official ones, None if unknown.

    An accuracy a on k images that only one side uses has a variance of a (1 - a) / k whichever seed trained it, and all
    our seeds use the same k images. The results do not record the variance of a val loss; on a few hundred images it
    exceeds that of the seeds, so a val loss gets no p there.
    """
    sizes = {result.data.val_samples for result in cell.results}
    dataset = DATASETS.get(cell.planned[0].run.dataset)
    if metric.startswith("train") or dataset is None or sizes == {dataset.val_samples}:
        return 0.0
    if metric == "val_loss":
        return None
    accuracy = spread(published).mean
    return accuracy * (1 - accuracy) * (1 / min(sizes) + 1 / dataset.val_samples)


def _runs(cell: Cell, rows: Iterable[Published]) -> Iterable[ComparedRun]:
    planned = {run.run.seed: run for run in cell.planned}
    results = {result.run.seed: result for result in cell.results}
    published = {row.seed: row for row in rows}
    for seed in [*planned, *(seed for seed in published if seed not in planned)]:
        if seed is None:
            yield ComparedRun(None, None, None, published[None])
        else:
            yield ComparedRun(seed, planned.get(seed), results.get(seed), published.get(seed))


def _gaps(cell: Cell, rows: Sequence[Published]) -> Iterable[Gap]:
    """Yield a cell's published runs that lack values, grouped by the metrics they lack and the cause."""
    by_seed: dict[int | None, list[Published]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    alike: dict[tuple[tuple[Metric, ...], bool, str], list[int | None]] = {}
    for seed, of_seed in by_seed.items():
        empty = [row for row in of_seed if row.best is None]
        if empty:
            lacking = tuple(metric for _, metric in METRIC_ROWS if any(row.metric == metric for row in empty))
            cause = next((row.cause for row in empty if row.cause), "")
            alike.setdefault((lacking, len(empty) == len(of_seed), cause), []).append(seed)
    for (metrics, whole, cause), seeds in alike.items():
        results = [result for result in cell.results if None in seeds or result.run.seed in seeds]
        ours = {
            metric: spread([getattr(result.best, metric).value for result in results]) for metric in metrics if results
        }
        yield Gap(cell.ratio, rows[0].ratio, cell.train_samples, tuple(seeds), metrics, whole, cause, ours)


def _recipe_differences(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """List where these runs' recipes differ from the thesis's: "epochs 90 instead of 180"."""
    thesis = Recipe().model_dump(mode="json")
    found: dict[str, list[object]] = {}
    for run in {run.training_hash: run for run in runs}.values():
        for field, value in run.training.model_dump(mode="json").items():
            if value != thesis[field] and value not in found.setdefault(field, []):
                found[field].append(value)
    return tuple(
        f"{field} {' or '.join(map(str, values))} instead of {thesis[field]}"
        for field, values in found.items()
        if values
    )

"""The arithmetic of a benchmark: measurements to speeds, ratios, shares of a peak, hours of a sweep. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.records import GrowthSample, Measurement, Sample, Shape, Side
from sweep.config.operations import OPERATIONS_PER_MAC, PASSES_TRAINING, estimate_s
from sweep.config.schema import PlacedRun
from sweep.plan.cost import CostModel, Timed
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES
from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec


class Spread(NamedTuple):
    """The median of n values, the least and the greatest."""

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises ValueError when there is none."""
        found = list(values)
        if not found:
            raise ValueError("no values to take a median of")
        return cls(median(found), min(found), max(found), len(found))


class Speed(NamedTuple):
    """Images a second of one side with one shape; outside_s: what a process takes besides its epochs."""

    train: float
    validation: float
    outside_s: float


class Fit(NamedTuple):
    """seconds = fixed_s + each_s × images, by least squares."""

    fixed_s: float
    each_s: float


def images_per_second(found: Measurement) -> float:
    """Give images trained and validated over the time of both, of all epochs but the first."""
    return (found.trained + found.validated) / (_mean(found.train_seconds) + _mean(found.validation_seconds))


def combined_images_per_second(found: Sequence[Measurement]) -> float:
    """Give what several processes at once do together, from the first one's beginning to the last one's end."""
    images = sum((one.trained + one.validated) * len(one.train_seconds) for one in found)
    return images / (max(one.ended for one in found) - min(one.began for one in found))


def operations(shape: Shape, trained: int, validated: int) -> float:
    """Give the operations of training and validating so many images: a multiply-accumulate is two."""
    macs = ARCHITECTURES[shape.architecture].forward_macs(DATASETS[shape.dataset].image_size)
    return (PASSES_TRAINING * trained + validated) * macs * OPERATIONS_PER_MAC


def peak_share(shape: Shape, found: Measurement) -> float:
    """Give the share of the matrix-product peak of the same process that its epochs reached."""
    seconds = _mean(found.train_seconds) + _mean(found.validation_seconds)
    return operations(shape, found.trained, found.validated) / seconds / found.matrix_peak


def outside_seconds(found: Measurement) -> float:
    """Give the seconds a process takes besides epochs: its first epoch's end, less an epoch as the later ones are."""
    later = [train + val for train, val in zip(found.train_seconds, found.validation_seconds, strict=True)]
    return max(found.first_epoch_s - median(later), 0.0)


def ratios(samples: Sequence[Sample], shape: Shape, faster: Side, slower: Side) -> Spread:
    """Give images/s of one side over another's, paired within rounds."""
    speeds = {
        side: {
            sample.round: images_per_second(sample.measurement)
            for sample in samples
            if (sample.shape, sample.side) == (shape, side)
        }
        for side in (faster, slower)
    }
    both = speeds[faster].keys() & speeds[slower].keys()
    return Spread.of(speeds[faster][number] / speeds[slower][number] for number in sorted(both))


def fastest(samples: Sequence[Sample]) -> Side:
    """Choose the side of the sample with the most images a second."""
    return max(samples, key=lambda sample: images_per_second(sample.measurement)).side


def speed(found: Sequence[Measurement]) -> Speed:
    """Sum up one side's measurements of one shape by their medians."""
    return Speed(
        train=median(one.trained / _mean(one.train_seconds) for one in found),
        validation=median(one.validated / _mean(one.validation_seconds) for one in found),
        outside_s=median(outside_seconds(one) for one in found),
    )


def sweep_hours(runs: Sequence[PlacedRun], speeds: Mapping[Shape, Speed]) -> float | None:
    """Project the hours of a sweep, one run after another on this device.

    A shape without a speed has that of the same architecture, by the ratio of their operations; without that there is
    no projection.
    """
    seconds = 0.0
    for placed in runs:
        spec = placed.spec
        shape = Shape(architecture=spec.run.architecture, dataset=spec.run.dataset)
        like = shape if shape in speeds else next((s for s in speeds if s.architecture == shape.architecture), None)
        if like is None:
            return None
        slower = operations(shape, 1, 1) / operations(like, 1, 1)
        known = speeds[like]
        epoch = placed.train_samples / known.train + placed.val_samples / known.validation
        seconds += known.outside_s + spec.training.epochs * epoch * slower
    return seconds / 3600


def grown(growth: Sequence[GrowthSample]) -> dict[tuple[Shape, str], list[GrowthSample]]:
    """Group what was measured by shape and precision."""
    groups: dict[tuple[Shape, str], list[GrowthSample]] = {}
    for sample in growth:
        groups.setdefault((sample.shape, sample.precision), []).append(sample)
    return groups


def by_images(group: Sequence[GrowthSample]) -> dict[int, Measurement]:
    """Give the measurement of one process alone at each number of images; none where there is only one number."""
    found: dict[int, Measurement] = {}
    for sample in group:
        if len(sample.measurements) == 1:
            found.setdefault(sample.images, sample.measurements[0])
    return dict(sorted(found.items())) if len(found) > 1 else {}


def by_processes(group: Sequence[GrowthSample]) -> dict[int, Sequence[Measurement]]:
    """Give the measurements at each number of processes, all with the most images; none where there is only one."""
    most = max(sample.images for sample in group)
    found = {len(sample.measurements): sample.measurements for sample in group if sample.images == most}
    return dict(sorted(found.items())) if len(found) > 1 else {}


def fit(found: Iterable[Measurement]) -> Fit:
    """Fit the seconds of a training epoch to its images. Raises ValueError for fewer than two different numbers."""
    points = [(one.trained, median(one.train_seconds)) for one in found]
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs two different numbers of images")
    mean_x, mean_y = _mean([x for x, _ in points]), _mean([y for _, y in points])
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return Fit(mean_y - each * mean_x, each)


def operations_errors(shape: Shape, found: Iterable[Measurement], device: str, cores: int) -> Spread:
    """Give by how many percent the cost model's epochs, by operations alone, are longer than measured ones.

    cores: those that were used of a CPU, of which the model counts one; 1 for a GPU.
    """

    def error(one: Measurement) -> float:
        epoch = _as_run(shape, one, device)
        whole_s = estimate_s(epoch)
        none_s = estimate_s(epoch._replace(train_samples=0, val_samples=0))
        return _percent((whole_s - none_s) / cores, one)

    return Spread.of(map(error, found))


def learned_errors(shape: Shape, by_count: Mapping[int, Measurement]) -> Spread | None:
    """Give the same of the model that learned from the measurements at other numbers of images; None without two."""
    if len(by_count) < 2:
        return None
    errors = []
    for count, one in by_count.items():
        others = [_timed(shape, other) for images, other in by_count.items() if images != count]
        estimate = CostModel(others).estimate(_as_run(shape, one, "cpu"))
        errors.append(_percent(estimate.seconds - estimate.start_s, one))
    return Spread.of(errors)


def _percent(estimated_s: float, found: Measurement) -> float:
    return 100 * (estimated_s / (_mean(found.train_seconds) + _mean(found.validation_seconds)) - 1)


def _as_run(shape: Shape, found: Measurement, device: str) -> PlacedRun:
    """Describe an epoch of a measurement as a run of one epoch."""
    run = Run(id=str(found.trained), architecture=shape.architecture, dataset=shape.dataset, ratio=1.0, seed=0)
    recipe = Recipe.model_validate({"epochs": 1, "precision": found.precision})
    size = DATASETS[shape.dataset].image_size
    return PlacedRun(RunSpec(run=run, training=recipe), "here", device, size, found.trained, found.validated)


def _timed(shape: Shape, found: Measurement) -> Timed:
    epoch = _as_run(shape, found, "cpu")
    return Timed(
        spec=epoch.spec,
        pool=epoch.pool,
        kind=None,
        precisions=frozenset((found.precision,)),
        image_size=epoch.image_size,
        train_samples=found.trained,
        train_s=_mean(found.train_seconds) / found.trained,
        val_s=_mean(found.validation_seconds) / found.validated,
        start_s=None,
        finished=True,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

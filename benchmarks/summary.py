"""The arithmetic of a benchmark: speeds, ratios, shares of the peak, hours of a sweep. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.records import GrowthSample, Measurement, Program, Sample, Shape, Side
from slurm.devices import CPU, Device
from sweep.config.operations import OPERATIONS_PER_MAC, PASSES_TRAINING, estimate_s
from sweep.config.schema import PlacedRun
from sweep.plan.cost import CostModel, Timed
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES
from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec


class Spread(NamedTuple):
    """Median and range of n values."""

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarise values. Raises ValueError if there are none."""
        found = list(values)
        if not found:
            raise ValueError("no values to take a median of")
        return cls(median(found), min(found), max(found), len(found))


class Speed(NamedTuple):
    """Images per second of one side with one shape; outside_s: the time of a process outside its epochs."""

    train: float
    validation: float
    outside_s: float


class Fit(NamedTuple):
    """seconds = fixed_s + each_s × images, by least squares."""

    fixed_s: float
    each_s: float


def images_per_second(found: Measurement) -> float:
    """Compute images trained and validated per second, over all epochs but the first."""
    return (found.trained + found.validated) / (_mean(found.train_seconds) + _mean(found.validation_seconds))


def combined_images_per_second(found: Sequence[Measurement]) -> float:
    """Compute the combined speed of concurrent processes, from the first start to the last end."""
    images = sum((one.trained + one.validated) * len(one.train_seconds) for one in found)
    return images / (max(one.ended for one in found) - min(one.began for one in found))


def operations(shape: Shape, trained: int, validated: int) -> float:
    """Count the operations of training and validating so many images; a multiply-accumulate is two."""
    macs = ARCHITECTURES[shape.architecture].forward_macs(DATASETS[shape.dataset].image_size)
    return (PASSES_TRAINING * trained + validated) * macs * OPERATIONS_PER_MAC


def peak_share(shape: Shape, found: Measurement) -> float:
    """Compute the share of the process's matrix-product peak that its epochs reached."""
    seconds = _mean(found.train_seconds) + _mean(found.validation_seconds)
    return operations(shape, found.trained, found.validated) / seconds / found.matrix_peak


def outside_seconds(found: Measurement) -> float:
    """Compute a process's seconds outside epochs: the end of its first epoch, less the median later epoch."""
    later = [train + val for train, val in zip(found.train_seconds, found.validation_seconds, strict=True)]
    return max(found.first_epoch_s - median(later), 0.0)


def ratios(samples: Sequence[Sample], shape: Shape, faster: Side, slower: Side) -> Spread:
    """Divide the speeds of two sides within each round."""
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
    """Choose the side of the sample with the most images per second."""
    return max(samples, key=lambda sample: images_per_second(sample.measurement)).side


def speed(found: Sequence[Measurement]) -> Speed:
    """Summarise one side's measurements of one shape by medians."""
    return Speed(
        train=median(one.trained / _mean(one.train_seconds) for one in found),
        validation=median(one.validated / _mean(one.validation_seconds) for one in found),
        outside_s=median(outside_seconds(one) for one in found),
    )


def sweep_hours(runs: Sequence[PlacedRun], speeds: Mapping[Shape, Speed]) -> float | None:
    """Project the hours of a sweep whose runs execute sequentially on this device.

    A shape without a speed gets that of another shape of the architecture, scaled by their operations. None if there is
    no such shape.
    """
    seconds = 0.0
    for placed in runs:
        spec = placed.spec
        shape = Shape(architecture=spec.run.architecture, dataset=spec.run.dataset)
        nearest = shape if shape in speeds else next((s for s in speeds if s.architecture == shape.architecture), None)
        if nearest is None:
            return None
        scale = operations(shape, 1, 1) / operations(nearest, 1, 1)
        rates = speeds[nearest]
        epoch = placed.train_samples / rates.train + placed.val_samples / rates.validation
        seconds += rates.outside_s + spec.training.epochs * epoch * scale
    return seconds / 3600


def projected_hours(samples: Sequence[Sample], runs: Sequence[PlacedRun]) -> dict[tuple[Program, str], float]:
    """Project the hours of a sweep by program and precision, where every network is measured."""
    found: dict[tuple[Program, str], dict[Shape, list[Measurement]]] = {}
    for sample in samples:
        shapes = found.setdefault((sample.side.program, sample.side.precision), {})
        shapes.setdefault(sample.shape, []).append(sample.measurement)
    hours = {
        key: sweep_hours(runs, {shape: speed(measured) for shape, measured in shapes.items()})
        for key, shapes in found.items()
    }
    return {key: value for key, value in hours.items() if value is not None}


def grown(growth: Sequence[GrowthSample]) -> dict[tuple[Shape, str], list[GrowthSample]]:
    """Group samples by shape and precision."""
    groups: dict[tuple[Shape, str], list[GrowthSample]] = {}
    for sample in growth:
        groups.setdefault((sample.shape, sample.precision), []).append(sample)
    return groups


def by_images(group: Sequence[GrowthSample]) -> dict[int, Measurement]:
    """Return the measurement of a single process by number of images; empty if there is only one number."""
    found: dict[int, Measurement] = {}
    for sample in group:
        if len(sample.measurements) == 1:
            found.setdefault(sample.images, sample.measurements[0])
    return dict(sorted(found.items())) if len(found) > 1 else {}


def by_processes(group: Sequence[GrowthSample]) -> dict[int, Sequence[Measurement]]:
    """Return the measurements with the most images by number of processes; empty if there is only one number."""
    most = max(sample.images for sample in group)
    found = {len(sample.measurements): sample.measurements for sample in group if sample.images == most}
    return dict(sorted(found.items())) if len(found) > 1 else {}


def fit(found: Iterable[Measurement]) -> Fit:
    """Fit a training epoch's seconds to its images. Raises ValueError for fewer than two numbers of images."""
    points = [(one.trained, median(one.train_seconds)) for one in found]
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs two different numbers of images")
    mean_x, mean_y = _mean([x for x, _ in points]), _mean([y for _, y in points])
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return Fit(mean_y - each * mean_x, each)


def operations_errors(shape: Shape, found: Iterable[Measurement], device: Device, cores: int) -> Spread:
    """Compute by how many percent the cost model's epochs, by operations alone, are longer than the measured ones.

    cores: used cores of a CPU, as the model's CPU has one; 1 for a GPU.
    """

    def error(one: Measurement) -> float:
        epoch = _as_run(shape, one, device)
        whole_s = estimate_s(epoch)
        none_s = estimate_s(epoch._replace(train_samples=0, val_samples=0))
        return _percent((whole_s - none_s) / cores, one)

    return Spread.of(map(error, found))


def learned_errors(shape: Shape, by_count: Mapping[int, Measurement]) -> Spread | None:
    """Compute the same for a model that learned from the other numbers of images; None if there are none."""
    if len(by_count) < 2:
        return None
    errors = []
    for count, one in by_count.items():
        others = [_timed(shape, other) for images, other in by_count.items() if images != count]
        estimate = CostModel(others).estimate(_as_run(shape, one, CPU))
        errors.append(_percent(estimate.seconds - estimate.start_s, one))
    return Spread.of(errors)


def _percent(estimated_s: float, found: Measurement) -> float:
    return 100 * (estimated_s / (_mean(found.train_seconds) + _mean(found.validation_seconds)) - 1)


def _as_run(shape: Shape, found: Measurement, device: Device) -> PlacedRun:
    """Describe a measured epoch as a run of one epoch."""
    run = Run(id=str(found.trained), architecture=shape.architecture, dataset=shape.dataset, ratio=1.0, seed=0)
    recipe = Recipe.model_validate({"epochs": 1, "precision": found.precision})
    size = DATASETS[shape.dataset].image_size
    return PlacedRun(RunSpec(run=run, training=recipe), "here", device, size, found.trained, found.validated)


def _timed(shape: Shape, found: Measurement) -> Timed:
    epoch = _as_run(shape, found, CPU)
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

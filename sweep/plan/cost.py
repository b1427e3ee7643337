"""What a run will cost in seconds: from what runs took, and before any has, from its arithmetic. Pure.

An estimate to choose by, not a promise: a start, and for every epoch the images trained and those validated, each at
a rate of its own. The rates come from the runs most like it; without any they are the recipe's multiply-accumulates
divided by what the device sustains. `sweep.plan.timings` gathers what runs took.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import NamedTuple

from sweep.config.operations import START_S, estimate_s
from sweep.config.schema import PlacedRun
from trainer.models.catalog import Architecture, facts
from trainer.records.run import RunSpec

OPERATIONS = "operations"  # the basis of an estimate that nothing was timed for

# Short epochs use a device less well, so the runs with the nearest numbers of images are asked; the median of five
# stands two that met a slow node.
NEAREST = 5

# What a time limit leaves beyond a measured estimate: nodes of a pool differ, and file servers have slow hours.
MARGIN = 2.0
MARGIN_OF_FEW = 3.0
FEW = 3  # fewer finished runs than this may all have had the same bad day


class Timed(NamedTuple):
    """What a run took, or has taken so far.

    kind: the name of its device; None for a processor, of which no two are alike, and for a GPU that is not known.
    precisions: asked for and used. train_s, val_s: of the device's time for one image. start_s: everything besides
    epochs, None where that is not known. finished: whether it ran to its end.
    """

    spec: RunSpec
    pool: str
    kind: str | None
    precisions: frozenset[str]
    image_size: int
    train_samples: int
    train_s: float
    val_s: float
    start_s: float | None
    finished: bool


class Estimate(NamedTuple):
    """Seconds of a run with one device to itself (for an estimate by operations, one core of a CPU).

    start_s: the part besides epochs. basis: what it rests on, in words. margin: what to multiply it by for a limit;
    None where it was not measured on such runs, and no limit should lean on it. learned: whether it rests on runs that
    were timed.
    """

    seconds: float
    start_s: float
    basis: str
    margin: float | None = None
    learned: bool = True


Key = tuple[object, ...]


class CostModel:
    """Estimates runs by those that were timed, the most alike there are.

    In this order: the run itself; the same architecture and image size; the same architecture at another image size;
    another architecture; each first in the same pool, then on the same kind of GPU elsewhere, always in the same
    precision; at last the operations alone. Where images or architectures differ, times are scaled by operations.
    """

    def __init__(self, timed: Iterable[Timed] = (), networks: Mapping[str, Architecture] | None = None) -> None:
        self._networks = networks or {}
        self._own: dict[str, Timed] = {}
        self._alike: dict[Key, list[Timed]] = {}
        for one in timed:
            self._own[one.spec.run.id] = one
            for precision in one.precisions:
                for key, *_ in _keys(one.spec.run.architecture, one.image_size, precision, one.pool, one.kind):
                    self._alike.setdefault(key, []).append(one)

    def estimate(self, run: PlacedRun) -> Estimate:
        """Estimate a run from its first epoch to its end."""
        own = self._own.get(run.id)
        if own and own.spec == run.spec and (own.finished or own.pool == run.pool):
            basis = "its own time" if own.finished else "its own epochs"
            return self._estimate(run, [own], basis, MARGIN)
        architecture, precision = run.spec.run.architecture, run.spec.training.precision
        for key, words, same in _keys(architecture, run.image_size, precision, run.pool, run.device.name):
            found = self._alike.get(key)
            if found:
                finished = [one for one in found if one.finished]
                chosen = finished or found
                count = f"{len(chosen)} {'finished run' if finished else 'run'}{'s' if len(chosen) > 1 else ''}"
                margin = MARGIN if len(finished) >= FEW else MARGIN_OF_FEW
                basis = f"{count}{'' if finished else ' in work'}{words}"
                return self._estimate(run, chosen, basis, margin if same else None)
        by_operations = estimate_s(run, facts(architecture, self._networks))
        return Estimate(by_operations, START_S, OPERATIONS, learned=False)

    def _estimate(self, run: PlacedRun, found: list[Timed], basis: str, margin: float | None) -> Estimate:
        """Take the medians of the runs whose epochs are nearest in size, scaled by operations."""

        def distance(one: Timed) -> tuple[float, str]:
            return abs(math.log(one.train_samples / run.train_samples)), one.spec.run.id

        nearest = sorted(found, key=distance)[:NEAREST]
        macs = self._macs(run.spec, run.image_size)
        train_s = median(one.train_s * macs / self._macs(one.spec, one.image_size) for one in nearest)
        val_s = median(one.val_s * macs / self._macs(one.spec, one.image_size) for one in nearest)
        starts = [one.start_s for one in nearest if one.start_s is not None]
        start_s = median(starts) if starts else START_S
        epoch_s = run.train_samples * train_s + run.val_samples * val_s
        return Estimate(start_s + run.spec.training.epochs * epoch_s, start_s, basis, margin)

    def _macs(self, spec: RunSpec, image_size: int) -> float:
        return facts(spec.run.architecture, self._networks).forward_macs(image_size)


def _keys(
    architecture: str, image_size: int, precision: str, pool: str, kind: str | None
) -> Iterator[tuple[Key, str, bool]]:
    """What a run can have in common with another, the most first: a key, what differs, whether only images do."""
    for alike, words in (
        ((architecture, image_size), ""),
        ((architecture,), " at another image size"),
        ((), " of another architecture"),
    ):
        yield (precision, "pool", pool, *alike), words, not words
        if kind is not None:
            yield (precision, "kind", kind, *alike), f"{words} in other pools", not words


def shared_s(seconds: float, gpus: int) -> float:
    """The seconds that several devices take for a run that takes one so long. Its start is not shared.

    Assumes that they share the rest without loss, which is not measured.
    """
    return min(START_S, seconds) + max(0.0, seconds - START_S) / gpus

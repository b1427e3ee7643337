"""The order of measurements: sides are interleaved, so that a temporary slowdown of the machine affects all."""

from collections.abc import Callable, Sequence

from benchmarks.launch import Bench
from benchmarks.records import Measurement, Sample, Shape, Side
from benchmarks.summary import images_per_second

Say = Callable[[str], None]


def interleave(sides: Sequence[Side], rounds: int) -> list[tuple[int, Side]]:
    """List (round, side) in measuring order: every side once per round, every other round reversed."""
    return [
        (number, side) for number in range(rounds) for side in (sides if number % 2 == 0 else list(reversed(sides)))
    ]


def compare(
    bench: Bench, shapes: Sequence[tuple[Shape, Sequence[Side]]], images: dict[str, int], rounds: int, say: Say
) -> list[Sample]:
    samples = []
    for shape, sides in shapes:
        for number, side in interleave(sides, rounds):
            found = measure(bench, shape, side, images[shape.architecture], f"round {number + 1} of {rounds}", say)
            samples.append(Sample(shape=shape, side=side, round=number, measurement=found))
    return samples


def search(bench: Bench, shape: Shape, variants: Sequence[Side], images: int, say: Say) -> list[Sample]:
    """Measure each variant of the peer once, to choose the fastest."""
    return [
        Sample(shape=shape, side=side, round=0, measurement=measure(bench, shape, side, images, "search", say))
        for side in variants
    ]


def measure(bench: Bench, shape: Shape, side: Side, images: int, what: str, say: Say) -> Measurement:
    """Measure one side alone and report its speed."""
    found = bench.measure(shape, side, images, drawn=images)
    say(
        f"{what}: {shape.architecture} {shape.dataset} {side.program} {found.precision} batch {side.batch} "
        f"loaders {side.loader_workers}: {images_per_second(found):,.0f} images/s, start-up {found.startup_s:.1f} s"
    )
    return found

"""In which order sides are measured: interleaved, so that what slows the machine for a while slows all of them."""

from collections.abc import Callable, Sequence

from benchmarks.launch import Bench
from benchmarks.records import Measurement, Sample, Shape, Side
from benchmarks.summary import images_per_second

Say = Callable[[str], None]


def interleave(sides: Sequence[Side], rounds: int) -> list[tuple[int, Side]]:
    """Give (round, side) in the order to measure: every side once a round, every other round backwards."""
    return [
        (number, side) for number in range(rounds) for side in (sides if number % 2 == 0 else list(reversed(sides)))
    ]


def compare(
    bench: Bench, shapes: Sequence[tuple[Shape, Sequence[Side]]], images: dict[str, int], rounds: int, say: Say
) -> list[Sample]:
    """Measure every shape's sides, round by round."""
    samples = []
    for shape, sides in shapes:
        for number, side in interleave(sides, rounds):
            found = measure(bench, shape, side, images[shape.architecture], f"round {number + 1} of {rounds}", say)
            samples.append(Sample(shape=shape, side=side, round=number, measurement=found))
    return samples


def search(bench: Bench, shape: Shape, variants: Sequence[Side], images: int, say: Say) -> list[Sample]:
    """Measure each variant of the peer once, to go on with the fastest."""
    return [
        Sample(shape=shape, side=side, round=0, measurement=measure(bench, shape, side, images, "search", say))
        for side in variants
    ]


def measure(bench: Bench, shape: Shape, side: Side, images: int, what: str, say: Say) -> Measurement:
    """Measure one side alone and say what came out."""
    found = bench.measure(shape, side, images, drawn=images)
    say(
        f"{what}: {shape.architecture} {shape.dataset} {side.program} {found.precision} batch {side.batch} "
        f"loaders {side.loader_workers}: {images_per_second(found):,.0f} images/s, start-up {found.startup_s:.1f} s"
    )
    return found

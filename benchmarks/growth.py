"""How our time grows with the number of images, and with the processes that share a device."""

from benchmarks.cases import growth_images, ours, side_by_side
from benchmarks.launch import Bench
from benchmarks.records import GrowthSample, Shape
from benchmarks.rounds import Say
from benchmarks.summary import combined_images_per_second


def with_images(bench: Bench, shape: Shape, precision: str, images: int, say: Say) -> list[GrowthSample]:
    """Measure growing parts of the images, as of growing ratios."""
    samples: list[GrowthSample] = []
    counts = growth_images(images)
    for count in counts if len(counts) > 1 else ():
        found = bench.measure(shape, ours(precision), count, drawn=images)
        say(f"growth: {shape.architecture} {shape.dataset} {found.precision} {count} images")
        samples.append(GrowthSample(shape=shape, precision=found.precision, images=count, measurements=(found,)))
    return samples


def with_processes(bench: Bench, shape: Shape, precision: str, images: int, gpu: bool, say: Say) -> list[GrowthSample]:
    """Measure one process, then several concurrently."""
    samples: list[GrowthSample] = []
    counts = side_by_side(gpu, bench.cores)
    for count in counts if len(counts) > 1 else ():
        found = bench.measure_beside(shape, ours(precision), images, count)
        speed = combined_images_per_second(found)
        say(f"growth: {shape.architecture} {shape.dataset} {found[0].precision} {count} at once: {speed:,.0f} images/s")
        samples.append(
            GrowthSample(shape=shape, precision=found[0].precision, images=images, measurements=tuple(found))
        )
    return samples

"""The defaults: how many images and epochs give stable numbers, and which variants of the peer to try. Pure."""

from typing import NamedTuple

from benchmarks.records import LIGHTNING, OURS, Shape, Side
from trainer.models.catalog import ARCHITECTURES

DATASET_OF_SIZE = {32: "cifar10", 64: "tinyimagenet"}
BATCH = 128  # of one replica of the recipe; ours has four replicas
STEP = 4 * BATCH
PEER_BATCHES = (BATCH, STEP)  # the peer as one replica, or as all four


class Extent(NamedTuple):
    """How much to measure. images: by architecture, trained and validated per epoch.

    Multiples of a step of 512, so that neither side drops a last batch and both train the same images. growth: by
    architecture, the most images for which growth is measured.
    """

    images: dict[str, int]
    epochs: int
    rounds: int
    growth: dict[str, int]


def extent(gpu: bool, quick: bool) -> Extent:
    """Choose so that the slower side's epoch takes seconds: 2 cores do 600 images/s with ResNet-18, 60 with the ViT."""
    if gpu:
        images = dict.fromkeys(ARCHITECTURES, 10_240 if quick else 20_480)
        return Extent(images, epochs=2 if quick else 5, rounds=1 if quick else 5, growth=images)
    if quick:
        return Extent({"resnet18": 1024, "vit": 512}, epochs=1, rounds=1, growth={"resnet18": 1024})
    return Extent({"resnet18": 2048, "vit": 512}, epochs=2, rounds=5, growth={"resnet18": 4096, "vit": 1024})


def shapes(architectures: list[str], sizes: list[int]) -> list[Shape]:
    return [
        Shape(architecture=architecture, dataset=DATASET_OF_SIZE[size])
        for size in sizes
        for architecture in architectures
    ]


def ours(precision: str) -> Side:
    return Side(program=OURS, precision=precision, batch=BATCH)


def peer_variants(precision: str, gpu: bool, cores: int) -> list[Side]:
    """List the ways a user might run the peer, the default first.

    On a CPU, loader processes compete with the training for cores; a GPU would wait without them.
    """
    workers = (min(cores, 16), max(cores // 2, 1), max(cores // 4, 1)) if gpu else (0, cores)
    return [
        Side(program=LIGHTNING, precision=precision, batch=batch, loader_workers=count)
        for count in dict.fromkeys(workers)
        for batch in PEER_BATCHES
    ]


def growth_images(images: int) -> list[int]:
    """List numbers of images from an eighth to all, in multiples of 512."""
    return sorted({max(images * part // 8 // STEP, 1) * STEP for part in (1, 2, 4, 8)})


def side_by_side(gpu: bool, cores: int) -> list[int]:
    """List numbers of processes to share the device: on a CPU up to one per core, on a GPU up to four."""
    most = min(4, cores) if gpu else cores
    return [count for count in (1, 2, 4, 8, 16, 32, 64, 128) if count <= most]

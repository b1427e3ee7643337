"""What is measured unless the user says: how many images and epochs give a steady number, and which variants. Pure."""

from typing import NamedTuple

from benchmarks.records import LIGHTNING, OURS, Shape, Side
from trainer.models.catalog import ARCHITECTURES

DATASET_OF_SIZE = {32: "cifar10", 64: "tinyimagenet"}
BATCH = 128  # the recipe's, of one replica; ours takes four of them a step
STEP = 4 * BATCH
PEER_BATCHES = (BATCH, STEP)  # one device in the place of one replica, or of all four


class Extent(NamedTuple):
    """How much is measured. images: by architecture, trained and validated an epoch, multiples of a step of 512.

    With a multiple of 512 neither side drops a last batch, so both train the same images. growth: the most images for
    which growth is measured, by architecture.
    """

    images: dict[str, int]
    epochs: int
    rounds: int
    growth: dict[str, int]


def extent(gpu: bool, quick: bool) -> Extent:
    """Choose so that the slower side's epoch takes seconds: on 2 cores ResNet-18 passes 600 images/s, the ViT 60."""
    if gpu:
        images = dict.fromkeys(ARCHITECTURES, 10_240 if quick else 20_480)
        return Extent(images, epochs=2 if quick else 5, rounds=1 if quick else 5, growth=images)
    if quick:
        return Extent({"resnet18": 1024, "vit": 512}, epochs=1, rounds=1, growth={"resnet18": 1024})
    return Extent({"resnet18": 2048, "vit": 512}, epochs=2, rounds=5, growth={"resnet18": 4096, "vit": 1024})


def shapes(architectures: list[str], sizes: list[int]) -> list[Shape]:
    """Give every architecture at every image size."""
    return [
        Shape(architecture=architecture, dataset=DATASET_OF_SIZE[size])
        for size in sizes
        for architecture in architectures
    ]


def ours(precision: str) -> Side:
    """Give our side: the recipe's four replicas."""
    return Side(program=OURS, precision=precision, batch=BATCH)


def peer_variants(precision: str, gpu: bool, cores: int) -> list[Side]:
    """Give the ways to run the peer that its user might choose between, the one to take untried first.

    On a CPU, loader processes compete with the training for the cores; a GPU waits without them.
    """
    workers = (min(cores, 16), max(cores // 2, 1)) if gpu else (0, cores)
    return [
        Side(program=LIGHTNING, precision=precision, batch=batch, loader_workers=count)
        for count in dict.fromkeys(workers)
        for batch in PEER_BATCHES
    ]


def growth_images(images: int) -> list[int]:
    """Give numbers of images from a small ratio's to all, each a multiple of a step's 512."""
    return sorted({max(images * part // 8 // STEP, 1) * STEP for part in (1, 2, 4, 8)})


def side_by_side(gpu: bool, cores: int) -> list[int]:
    """Give how many processes share the device: on a CPU up to one a core, on a GPU up to four."""
    most = min(4, cores) if gpu else cores
    return [count for count in (1, 2, 4, 8, 16, 32, 64, 128) if count <= most]

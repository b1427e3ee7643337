"""What an epoch draws at random, and the drawing of the next one beside the present one.

On a GPU the cores are idle while an epoch is computed; on a CPU they are what computes it.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from trainer.data.augment import Boxes, draw_boxes
from trainer.data.catalog import Dataset
from trainer.data.order import epoch_order, generator


class Draws(NamedTuple):
    """An epoch's images in their order, (steps, images a step) int64, and a box for each: fields of the same shape."""

    order: Tensor
    boxes: Boxes


def draw_epoch(dataset: Dataset, samples: int, replicas: int, batch: int, steps: int, seed: int, epoch: int) -> Draws:
    """Draw order and augmentation of an epoch, on the CPU: a pure function."""
    order = epoch_order(samples, replicas, batch, steps, seed, epoch)
    boxes = draw_boxes(dataset, order.numel(), generator(seed, epoch, "augmentation"))
    return Draws(order, Boxes(*(field.view(order.shape) for field in boxes)))


class EpochDraws:
    """The draws of one epoch after another. ahead: a thread makes those of the next while this one is computed."""

    def __init__(self, draw: Callable[[int], Draws], epochs: int, *, ahead: bool) -> None:
        self._draw = draw
        self._epochs = epochs
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draws") if ahead else None
        self._next: tuple[int, Future[Draws]] | None = None

    def take(self, epoch: int) -> Draws:
        """Give the draws of an epoch, whichever it is; expects the one after it to be asked for next."""
        expected, self._next = self._next, None
        draws = expected[1].result() if expected and expected[0] == epoch else self._draw(epoch)
        if self._thread and epoch + 1 < self._epochs:
            self._next = epoch + 1, self._thread.submit(self._draw, epoch + 1)
        return draws

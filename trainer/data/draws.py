"""The random draws of an epoch, and drawing the next epoch while the current one is computed.

That pays on a GPU, which leaves the cores idle; on a CPU they compute the epoch.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from trainer.data.augment import Boxes, draw_boxes
from trainer.data.catalog import Dataset
from trainer.data.order import epoch_order, generator


class Draws(NamedTuple):
    """An epoch's image order, (steps, images per step) int64, and a box per image, fields of the same shape."""

    order: Tensor
    boxes: Boxes


def draw_epoch(dataset: Dataset, samples: int, replicas: int, batch: int, steps: int, seed: int, epoch: int) -> Draws:
    """Draw order and augmentation of an epoch on the CPU; a pure function of its arguments."""
    order = epoch_order(samples, replicas, batch, steps, seed, epoch)
    boxes = draw_boxes(dataset, order.numel(), generator(seed, epoch, "augmentation"))
    return Draws(order, Boxes(*(field.view(order.shape) for field in boxes)))


class EpochDraws:
    """The draws of successive epochs. ahead: a thread draws the next epoch while the current one is computed."""

    def __init__(self, draw: Callable[[int], Draws], epochs: int, *, ahead: bool) -> None:
        self._draw = draw
        self._epochs = epochs
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draws") if ahead else None
        self._next: tuple[int, Future[Draws]] | None = None

    def take(self, epoch: int) -> Draws:
        """Return the draws of any epoch, and start drawing the next if drawing ahead."""
        expected, self._next = self._next, None
        draws = expected[1].result() if expected and expected[0] == epoch else self._draw(epoch)
        if self._thread and epoch + 1 < self._epochs:
            self._next = epoch + 1, self._thread.submit(self._draw, epoch + 1)
        return draws

"""The processes that share a run's replicas: whose part is computed here, what is reduced, what process 0 decides.

`Group` is one process that executes all replicas, `trainer.distributed.process_group` several. All run the same loop on
their part. Only process 0 knows of files and signals: it decides, and the others hear of it at agreed points.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainer.records.attempt import Cause
from trainer.stop import Stopped

AGREE_EVERY = {"cpu": 1, "cuda": 16}  # steps; the word goes from CPU to CPU, so a GPU's queue of work does not drain
Tick = Callable[[int, int], None]


class Group:
    """One process that executes all replicas of a run: nothing to reduce, nobody to agree with."""

    rank = 0
    size = 1

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes."""

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sum over the processes."""

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of process 0."""

    def broadcast_words(self, words: str | None = None) -> str | None:
        """Process 0's words, which it alone gives."""
        return words

    def agree(self, stop: bool = False) -> bool:
        """Process 0's answer, which it alone gives."""
        return stop


class LostError(Exception):
    """The other processes of the run cannot be reached any more."""


class FellowError(Exception):
    """Another process of the run failed; cause says of what."""

    def __init__(self, words: str, cause: Cause) -> None:
        super().__init__(words)
        self.cause = cause


class StoppedByRank0(Stopped):
    """Process 0 stops here, and this one with it."""


def agreed(tick: Tick, group: Group, device: torch.device) -> Tick:
    """Hold back what stops the run in `tick` until a step at which all processes stop together."""
    if group.size == 1:
        return tick
    held: Stopped | None = None
    every = AGREE_EVERY[device.type]

    def look(step: int, steps: int) -> None:
        nonlocal held
        if held is None:
            try:
                tick(step, steps)
            except Stopped as reason:
                held = reason
        if step % every == 0 or step == steps:
            _stop_together(held, group)

    return look


def together(act: Callable[[], None], group: Group) -> None:
    """Act; where that stops the run, all processes stop there."""
    if group.size == 1:
        act()
        return
    held: Stopped | None = None
    try:
        act()
    except Stopped as reason:
        held = reason
    _stop_together(held, group)


def _stop_together(held: Stopped | None, group: Group) -> None:
    if group.agree(held is not None):
        raise held or StoppedByRank0

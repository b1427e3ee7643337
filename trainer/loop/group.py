"""The processes that share a run's replicas, as the loop sees them: whose part is computed here, and what all add up.

`Alone` is one process that executes all replicas; `trainer.distributed.process_group` is several. Stopping is agreed:
every process leaves an epoch at the same step, or all wait for one that is not coming.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainer.stop import Stopped

AGREE_EVERY = {"cpu": 1, "cuda": 16}  # steps; the word goes from CPU to CPU, so a GPU's queue of work does not drain
Tick = Callable[[int, int], None]


class Alone:
    """All replicas of a run in one process: nothing to add up, nobody to agree with."""

    rank = 0
    size = 1

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes."""

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sum over the processes."""

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of process 0."""

    def agree(self, stop: bool) -> bool:
        """Give process 0's answer to all."""
        return stop


class LostError(Exception):
    """The other processes of the run cannot be reached any more."""


class LeaveEpoch(Stopped):
    """Process 0 stops here, and this one with it."""


def agreed(tick: Tick, group: Alone, device: torch.device) -> Tick:
    """Give a tick that holds back what stops the run until a step at which all processes stop together."""
    held: Stopped | None = None
    every = AGREE_EVERY[device.type]

    def look(step: int, steps: int) -> None:
        nonlocal held
        if held is None:
            try:
                tick(step, steps)
            except Stopped as reason:
                held = reason
        if (step % every == 0 or step == steps) and group.agree(held is not None):
            raise held or LeaveEpoch

    return look

"""Several data-parallel replicas on one device: batch normalisation in one pass, or one replica after the other.

With DistributedDataParallel each replica normalises by the statistics of its own batch, and the running statistics of
replica 0 are kept. That is part of the recipe: one batch of 512 does not reproduce the thesis's numbers.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")


class ReplicaBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over `replicas` equal, contiguous groups of the batch; group r holds replica r's images.

    Evaluation is BatchNorm2d's. On a CPU in fp32 one pass in groups beats one pass per replica, as the convolutions see
    the whole batch (measured in benchmarks; agreement with separate passes is tested).
    """

    def __init__(self, num_features: int, replicas: int = 1) -> None:
        super().__init__(num_features)
        self.replicas = replicas

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x: (replicas * B, C, H, W) in training, any batch in evaluation. Returns x's shape."""
        if not self.training or self.replicas == 1:
            return super().forward(x)
        assert self.momentum is not None
        if len(x) % self.replicas:
            raise ValueError(f"a batch of {len(x)} does not divide into {self.replicas} replicas")
        groups = []
        for replica, group in enumerate(x.chunk(self.replicas)):
            kept = replica == 0
            groups.append(
                F.batch_norm(
                    group,
                    self.running_mean if kept else None,
                    self.running_var if kept else None,
                    self.weight,
                    self.bias,
                    training=True,
                    momentum=self.momentum,
                    eps=self.eps,
                )
            )
        return torch.cat(groups)


def in_turn(model: nn.Module, parts: Iterable[T]) -> Iterator[T]:
    """Yield each replica's part of a step, replica 0's first, for a pass of its own: exact for whatever the network is.

    Each begins with the buffers that the step began with, and at the end those are replica 0's, as
    DistributedDataParallel has it.
    """
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    kept: list[Tensor] | None = None
    for part in parts:
        if kept is not None:
            _put(buffers, before)
        yield part
        if kept is None:
            kept = [buffer.clone() for buffer in buffers]
    if kept is not None:
        _put(buffers, kept)


@torch.no_grad()
def _put(buffers: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)

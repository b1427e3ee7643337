"""Batch normalisation of several data-parallel replicas on one device, in one pass.

With DistributedDataParallel each replica normalises by the statistics of its own batch, and the running statistics of
replica 0 are kept. That is part of the recipe: one batch of 512 does not reproduce the thesis's numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

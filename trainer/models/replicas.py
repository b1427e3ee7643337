"""Batch normalisation as several data-parallel replicas would do it, on one device in one pass.

With DistributedDataParallel each replica normalises by the statistics of its own batch, and the running statistics of
replica 0 are the ones kept. That is part of the recipe: with one group of 512 the thesis's numbers do not come out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReplicaBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over `replicas` equal groups of the batch; group r is replica r's images, in a row.

    Evaluation is BatchNorm2d's. One pass in groups beats one pass a replica on a CPU in fp32: the convolutions see
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

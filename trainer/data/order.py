"""Seeds and image order of an epoch: pure functions of (seed, epoch), so checkpoints need no random state."""

import numpy as np
import torch
from torch import Tensor

PURPOSES = ("weights", "order", "augmentation", "dropout")


def draw_seed(seed: int, epoch: int, purpose: str) -> int:
    """Derive an independent 63-bit seed for one purpose in one epoch.

    Adding seed and epoch would give seed 43 at epoch 0 the order of seed 42 at epoch 1; a hash does not.
    """
    sequence = np.random.SeedSequence([seed, epoch, PURPOSES.index(purpose)])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Seed the CPU generator for one purpose in one epoch."""
    return torch.Generator().manual_seed(draw_seed(seed, epoch, purpose))


def epoch_order(samples: int, replicas: int, batch: int, steps: int, seed: int, epoch: int) -> Tensor:
    """Deal a new permutation to the replicas, as DistributedSampler does.

    The permutation is padded to a multiple of `replicas` by repeating its head; replica r takes every replicas-th
    entry from r on. Returns (steps, replicas * batch) int64 on the CPU; in each step replica 0's batch comes first.
    """
    order = torch.randperm(samples, generator=generator(seed, epoch, "order"))
    padding = -samples % replicas
    order = torch.cat([order, order[:padding]])
    dealt = order.view(-1, replicas).t()[:, : steps * batch]
    return dealt.reshape(replicas, steps, batch).transpose(0, 1).reshape(steps, replicas * batch)

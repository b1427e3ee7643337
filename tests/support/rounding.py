"""How far two correct computations of the same number may differ: by the arithmetic, not by a machine."""

import math

import torch

FACTOR = 2.0
CONVOLUTION = 9 * 512  # terms of the longest sum in ResNet-18
HIDDEN = 512  # and in the ViT
RESNET_LAYERS = 18
VIT_LAYERS = 6 * 8 + 3  # a block has four products, two of attention and two norms


def rounding(dtype: torch.dtype, *, terms: int = 1, depth: int = 1, scale: float = 1.0) -> float:
    """Bound the difference of two correct computations of values of this scale.

    Processors and libraries add up in orders of their own. Each addition rounds by up to half of the format's eps, up
    or down, so that a sum of `terms` numbers is a random walk of that many steps, and `depth` such sums one after the
    other are one of terms * depth: eps * sqrt(terms * depth) (Higham & Mary 2019). Twice that leaves room for the
    largest of many elements. In fp16 and bf16 sums are kept in fp32, so that only what a layer puts out is rounded:
    terms is 1.

    Not for weights after AdamW. A step is the rate times something of order one, the gradient over its own size, so
    weights whose gradient is no more than rounding may move the other way: they differ by up to twice the rate a step,
    which is all they moved. A loss hardly depends on such weights; what compares weights does it in double precision
    (`training_fixtures.in_double`), where a gradient's rounding is nothing beside AdamW's epsilon.
    """
    return FACTOR * torch.finfo(dtype).eps * math.sqrt(terms * depth) * scale

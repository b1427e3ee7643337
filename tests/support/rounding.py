"""How far two correct computations of the same number may lie apart."""

import torch


def rounding(dtype: torch.dtype, roundings: int) -> float:
    """Bound the difference between two orders of computing a number of size one that is rounded so often on its way.

    Each rounding changes it by at most half a unit in the last place, eps / 2, and both computations round (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). A sum of n products rounds n times in its
    format; one that is accumulated in a wider format rounds once, where it is stored. It holds on any processor,
    whatever its vector width and the order it adds in; a wrong coefficient is off by far more.
    """
    return roundings * torch.finfo(dtype).eps

"""How far two correct computations of the same number may differ."""

import torch


def rounding(dtype: torch.dtype, roundings: int) -> float:
    """Bound the difference of two computations of a number of size one, each with this many roundings.

    Each rounding changes it by at most half a unit in the last place, eps / 2, and both computations round (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). A sum of n products rounds n times in its
    format, or once when stored if accumulated in a wider format. The bound holds for any processor, vector width and
    order of summation; a wrong coefficient exceeds it by far.
    """
    return roundings * torch.finfo(dtype).eps

"""The spread of a metric over seeds: count, mean and sample standard deviation."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1 in the denominator) of n values; std is None for one value."""

    n: int
    mean: float
    std: float | None


def spread(values: Sequence[float]) -> Spread:
    """Summarise the values of several seeds. Raises ValueError if there are none."""
    if not values:
        raise ValueError("no values to summarise")
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), std)

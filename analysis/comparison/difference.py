"""Whether two means over seeds differ: the difference, its standard error, z and p, corrected for many cells.

Owns the statistics of the comparison; knows no study and no file. Pure.

**The standard error.** se² = s² (1/n + 1/m) + step²/12 + sampling.

- s is the pooled standard deviation of the n values of ours and the m published ones, s² = Σ(nᵢ - 1) sᵢ² / Σ(nᵢ - 1):
  the two-sample t-test for equal variances (NIST/SEMATECH e-Handbook, 1.3.5.3). The variances are taken as equal
  because both sides claim the same recipe; without pooling, three seeds would show little. If one side has a single
  value, or its printed values are all equal, it does not show the spread and s is the other side's.
- step²/12 is the variance of a rounding error, uniform over one step of the last printed digit. It is *not* divided
  by m: seeds that spread less than a step are all rounded the same way, and their mean keeps the whole error. Where
  they spread more, the printed s² already includes the rounding (Sheppard's correction); counting it twice is
  cautious, and small beside s².
- sampling is the variance of a mean that does not depend on the seed, from the validation images of both sides. The
  caller provides it.

**The distribution.** s has ν = n + m - 2 degrees of freedom, so difference / se is not a normal z: for 3 + 3 seeds it
follows Student's t with 4, and chance exceeds 2.78, not 1.96, one time in twenty. The other two terms are known, not
estimated; Welch and Satterthwaite's formula gives the degrees of freedom of the sum, ν (se² / s² (1/n + 1/m))².

**Many cells.** One in twenty cells passes p < 0.05 by chance. Benjamini and Hochberg's procedure (1995) selects the
cells that differ such that at most 5 % of them are selected wrongly; where nothing differs, it selects any in 5 % of
tables. It holds for tests that depend on each other positively, as the metrics of one run do.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.05
SURPRISE = 0.01  # a count of small p-values less likely than this is called more than chance


class Difference(NamedTuple):
    """Ours minus published. All but value is None where no spread is known; degrees: of freedom, may be infinite.

    p: two-sided; a caller that knows of an error not included in standard_error sets it to None.
    """

    value: float
    standard_error: float | None = None
    degrees: float | None = None
    z: float | None = None
    p: float | None = None


def difference(
    ours: Sequence[float], published: Sequence[float], step: float, sampling_variance: float = 0.0
) -> Difference:
    """Compare the means of two non-empty samples. step: to which the published values are rounded, above 0."""
    value = statistics.fmean(ours) - statistics.fmean(published)
    if abs(value) < 1e-12:  # the mean of three times 0.43 differs from it in the last bit
        value = 0.0
    common = _common_variance(ours, published)
    if common is None:
        return Difference(value)
    variance, degrees = common
    of_seeds = variance * (1 / len(ours) + 1 / len(published))
    total = of_seeds + step**2 / 12 + sampling_variance
    degrees = degrees * (total / of_seeds) ** 2 if of_seeds else math.inf
    standard_error = math.sqrt(total)
    z = value / standard_error
    return Difference(value, standard_error, degrees, z, _two_sided_p(z, degrees))


def half_interval(found: Difference, level: float = LEVEL) -> float | None:
    """Return half the width of the difference's 95 % interval, which contains 0 if p is above 0.05; None without p."""
    if found.standard_error is None or found.degrees is None or found.p is None:
        return None
    from scipy.special import ndtri, stdtrit

    quantile = ndtri(1 - level / 2) if math.isinf(found.degrees) else stdtrit(found.degrees, 1 - level / 2)
    return float(quantile) * found.standard_error


def those_that_differ(p_values: Sequence[float | None], level: float = LEVEL) -> list[bool]:
    """Tell which differ, by Benjamini and Hochberg: all up to the largest p(i) <= i level / n; never a None."""
    known = sorted(p for p in p_values if p is not None)
    passed = [p for rank, p in enumerate(known, start=1) if p <= rank * level / len(known)]
    limit = max(passed, default=-1.0)
    return [p is not None and p <= limit for p in p_values]


def chance_of_so_many(count: int, of: int, level: float = LEVEL) -> float:
    """Return the probability that at least count of `of` independent tests pass the level if nothing differs."""
    return sum(math.comb(of, k) * level**k * (1 - level) ** (of - k) for k in range(count, of + 1))


def _common_variance(ours: Sequence[float], published: Sequence[float]) -> tuple[float, float] | None:
    """Pool the variance over seeds; returns (variance, its degrees of freedom), None if neither side shows one.

    Ours are not rounded: equal values show that the seed changes nothing. Equal published values do not.
    """
    sides = [(statistics.variance(side), len(side) - 1) for side in (ours, published) if len(side) > 1]
    spreading = [(variance, degrees) for variance, degrees in sides if variance > 0]
    if spreading:
        total = sum(degrees for _, degrees in spreading)
        return sum(variance * degrees for variance, degrees in spreading) / total, total
    return (0.0, math.inf) if len(ours) > 1 else None


def _two_sided_p(z: float, degrees: float) -> float:
    from scipy.special import ndtr, stdtr  # here: reading a reference needs no scipy

    return float(2 * (ndtr(-abs(z)) if math.isinf(degrees) else stdtr(degrees, -abs(z))))

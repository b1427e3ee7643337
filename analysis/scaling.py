"""Data scaling: how a run's error falls with its number of training images, and how two architectures compare.

Pure: numbers in, numbers out. The caller chooses the error: 1 - accuracy, or the loss.

**The curve** is error(n) = e_inf + a n^-b, the power law with a floor of Hestness et al. 2017 ("Deep Learning Scaling
is Predictable, Empirically", arXiv:1712.00409) and Rosenfeld et al. 2020 ("A Constructive Prediction of the
Generalization Error Across Scales", arXiv:1909.12673), fitted by least squares to the single runs. The power law does
not hold for small data: below it lies a "small data region" (Hestness, figure 6), where each doubling of the images
gains more than the one before. The thesis's own numbers lie there. So the signs of a and b are free: with b <= 0 the
same formula follows that bend and describes the range of the data only, which `has_floor` tells. The parameters fitted
are the values at the fewest and the most images and a bend between them: such data hardly identify e_inf, a and b,
but do identify these three.

**The interval** comes from the least squares: parameters drawn from the multivariate t distribution around the fit,
with the residuals' variance and degrees of freedom. The runs within each ratio are not resampled: that keeps, in
expectation, two thirds of the variance of three seeds and none of one seed's, so the interval would be too narrow just
where little is known. Residuals pool the seeds of all ratios, so a sweep with one seed has an interval too. Where the
means of the ratios lie further from the curve than their seeds explain (F test of lack of fit, 5 %), the interval takes
its variance and degrees of freedom from that lack of fit, and `lacks_fit` is set. The spread is assumed equal at all
sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.errors import AnalysisError

MIN_SIZES = 4  # three parameters, and one more to judge the fit
DRAWS = 2000
SEED = 20240601
LEVEL = 0.95
MAX_BEND = 8.0  # beyond it the curve is a step; also keeps exp() finite
CROSSING_STEPS = 200

Floats = NDArray[np.float64]


class FitError(AnalysisError):
    """These runs do not determine a scaling curve; the message says why and is printed after a name and a colon."""


@dataclass(frozen=True, eq=False)
class ScalingFit:
    """A fitted curve over the range of images it was fitted on.

    values: error at the fewest images, error at the most, bend. draws: (DRAWS, 3), parameters from their distribution.
    lacks_fit: the interval is widened because the curve does not follow the means.
    """

    fewest: float
    most: float
    values: Floats
    draws: Floats
    lacks_fit: bool

    @property
    def exponent(self) -> float:
        """The curve's b; above 0, the error falls as a power law towards a floor."""
        return float(2 * self.values[2] / np.log(self.most / self.fewest))

    @property
    def floor(self) -> float:
        """The curve's e_inf: the error with infinitely many images, if `has_floor`."""
        first, last, bend = self.values
        return float(first - (first - last) / -np.expm1(-2 * bend)) if bend else float("-inf")

    @property
    def scale(self) -> float:
        """The curve's a."""
        return float((self.values[0] - self.floor) * self.fewest**self.exponent)

    @property
    def has_floor(self) -> bool:
        """Whether the curve is the power law of the literature: b > 0 and e_inf >= 0."""
        return self.exponent > 0 and self.floor >= 0

    def error(self, images: Sequence[float] | Floats) -> Floats:
        """Evaluate the fitted error at these numbers of images."""
        return np.asarray(_errors(self.values[None], self._share(images))[0])

    def interval(self, images: Sequence[float] | Floats) -> tuple[Floats, Floats]:
        """Return the 95 % interval of the curve (the mean, not a single run) at these numbers of images."""
        return _bounds(_errors(self.draws, self._share(images)))

    def images_for(self, errors: Sequence[float] | Floats) -> Floats:
        """Return the images needed for these errors: 0 if the curve starts below, infinity if it never gets there."""
        return _exp(self._log_images(self.values[None], errors)[0])

    def _share(self, images: Sequence[float] | Floats) -> Floats:
        return np.asarray(np.log(np.asarray(images, dtype=float) / self.fewest) / np.log(self.most / self.fewest))

    def _log_images(self, values: Floats, errors: Sequence[float] | Floats) -> Floats:
        share = _shares(values, np.asarray(errors, dtype=float))
        return np.asarray(np.log(self.fewest) + share * np.log(self.most / self.fewest))


class DataRatio(NamedTuple):
    """The images the second curve needs as a multiple of the first's, for each error, with its 95 % interval."""

    errors: Floats
    ratio: Floats
    low: Floats
    high: Floats


class Crossing(NamedTuple):
    """The images at which two curves are equal; low, high: the nearest that tell them apart, None beyond the data."""

    images: float
    low: float | None
    high: float | None


def fit_scaling(images: Sequence[float], errors: Sequence[float]) -> ScalingFit:
    """Fit the curve to runs, given the images and error of each. Raises FitError if they do not determine one."""
    from scipy import optimize  # here: takes 0.2 s to import

    sizes, values = np.asarray(images, dtype=float), np.asarray(errors, dtype=float)
    distinct = np.unique(sizes)
    if len(distinct) < MIN_SIZES:
        raise FitError(
            f"no curve, as a fit needs {MIN_SIZES} different numbers of images and there are {len(distinct)}"
        )
    fewest, most = float(distinct[0]), float(distinct[-1])
    share = np.log(sizes / fewest) / np.log(most / fewest)

    def residuals(parameters: Floats) -> Floats:
        return np.asarray(_errors(parameters[None], share)[0] - values)

    starts = [_best_line(share, values, bend) for bend in np.linspace(-4, 4, 33)]
    start = min(starts, key=lambda parameters: float(np.sum(residuals(parameters) ** 2)))
    bounds = ([-np.inf, -np.inf, -MAX_BEND], [np.inf, np.inf, MAX_BEND])
    found: Any = optimize.least_squares(
        residuals, start, bounds=bounds, x_scale="jac", jac="3-point", xtol=1e-12, ftol=1e-12
    )
    fitted, jacobian = np.asarray(found.x), np.asarray(found.jac)
    if not found.success or not np.all(np.isfinite(fitted)):
        raise FitError("no curve, as the fit did not converge")
    if fitted[0] - fitted[1] <= 1e-9 * max(1.0, abs(fitted[0])):
        raise FitError("no curve, as more images do not make it better")
    if abs(fitted[2]) >= MAX_BEND - 1e-3 or np.linalg.cond(jacobian) > 1e8:
        raise FitError("no curve, as its bend cannot be told from these runs")
    variance, freedom, lacks_fit = _variance(sizes, values, residuals(fitted))
    draws = _draws(fitted, variance * np.linalg.inv(jacobian.T @ jacobian), freedom)
    return ScalingFit(fewest, most, fitted, draws, lacks_fit)


def common_errors(first: ScalingFit, second: ScalingFit) -> tuple[float, float] | None:
    """Return the (lowest, highest) error that both curves take within their data; None if there is none."""
    low, high = max(first.values[1], second.values[1]), min(first.values[0], second.values[0])
    return (float(low), float(high)) if low < high else None


def data_ratio(first: ScalingFit, second: ScalingFit, errors: Sequence[float] | Floats) -> DataRatio:
    """Compute the images the second curve needs for each of these errors, as a multiple of the first's.

    The runs of the two are treated as independent; sharing subsets by seed makes the interval slightly too wide.
    """
    errors = np.asarray(errors, dtype=float)
    with np.errstate(invalid="ignore"):  # infinity - infinity where neither curve gets there; _bounds handles the NaN
        logs = second._log_images(_shifted(second.draws), errors) - first._log_images(first.draws, errors)
    low, high = _bounds(logs)
    return DataRatio(errors, second.images_for(errors) / first.images_for(errors), _exp(low), _exp(high))


def crossings(first: ScalingFit, second: ScalingFit) -> list[Crossing]:
    """Find where the curves cross within the images both were fitted on, fewest images first.

    Within a crossing's interval, the 95 % interval of the difference contains zero.
    """
    fewest, most = max(first.fewest, second.fewest), min(first.most, second.most)
    if fewest >= most:
        return []
    images = np.geomspace(fewest, most, CROSSING_STEPS)
    difference = second.error(images) - first.error(images)
    low, high = _bounds(
        _errors(_shifted(second.draws), second._share(images)) - _errors(first.draws, first._share(images))
    )
    apart = (low > 0) | (high < 0)
    found = []
    for before in np.flatnonzero(np.sign(difference[:-1]) * np.sign(difference[1:]) < 0):
        step = difference[before] / (difference[before] - difference[before + 1])
        at = float(images[before] * (images[before + 1] / images[before]) ** step)
        below, above = np.flatnonzero(apart[: before + 1]), np.flatnonzero(apart[before + 1 :])
        found.append(
            Crossing(
                at,
                float(images[below[-1]]) if len(below) else None,
                float(images[before + 1 + above[0]]) if len(above) else None,
            )
        )
    return found


def _errors(values: Floats, share: Floats) -> Floats:
    """Evaluate curves at shares of the way from fewest to most images, on the log scale. values: (curves, 3)."""
    first, last, bend = (values[:, column : column + 1] for column in range(3))
    straight = np.abs(bend) < 1e-12
    safe = np.where(straight, 1.0, bend)
    way = np.where(straight, share, np.expm1(-2 * safe * share) / np.expm1(-2 * safe))
    return np.asarray(first + (last - first) * way)


def _shares(values: Floats, errors: Floats) -> Floats:
    """Invert `_errors`."""
    first, last, bend = (values[:, column : column + 1] for column in range(3))
    straight = np.abs(bend) < 1e-12
    safe = np.where(straight, 1.0, bend)
    with np.errstate(divide="ignore", invalid="ignore"):
        way = (errors - first) / (last - first)
        inside = way * np.expm1(-2 * safe)
        # Below the floor no number of images is enough; above the start of a falling bend none is few enough.
        bent = np.where(inside > -1, np.log1p(inside) / (-2 * safe), np.where(safe > 0, np.inf, -np.inf))
    return np.asarray(np.where(straight, way, bent))


def _exp(logs: Floats) -> Floats:
    with np.errstate(over="ignore"):  # an overflow means out of reach: infinitely many
        return np.asarray(np.exp(logs))


def _best_line(share: Floats, values: Floats, bend: float) -> Floats:
    """Fit the other two parameters, which are linear, for a given bend."""
    way = _errors(np.array([[0.0, 1.0, bend]]), share)[0]
    slope = float(np.cov(way, values, bias=True)[0, 1] / np.var(way))
    first = float(values.mean() - slope * way.mean())
    return np.array([first, first + slope, bend])


def _variance(sizes: Floats, values: Floats, residuals: Floats) -> tuple[float, int, bool]:
    """Estimate a run's variance about the curve, its degrees of freedom, and whether it comes from lack of fit."""
    from scipy import stats

    distinct = np.unique(sizes)
    total = float(np.sum(residuals**2))
    pure = float(sum(np.sum((values[sizes == size] - values[sizes == size].mean()) ** 2) for size in distinct))
    pure_freedom, lack_freedom = len(values) - len(distinct), len(distinct) - 3
    lack = max(total - pure, 0.0) / lack_freedom
    if pure_freedom and pure > 0 and lack / (pure / pure_freedom) > stats.f.ppf(LEVEL, lack_freedom, pure_freedom):
        return lack, lack_freedom, True
    return total / (len(values) - 3), len(values) - 3, False


def _draws(center: Floats, covariance: Floats, freedom: int) -> Floats:
    generator = np.random.default_rng(SEED)
    normal = generator.standard_normal((DRAWS, 3))
    stretch = np.sqrt(freedom / generator.chisquare(freedom, (DRAWS, 1)))
    # The tiny diagonal lets the factorisation succeed with residuals of zero.
    factor = np.linalg.cholesky(covariance + 1e-18 * np.eye(3))
    draws = center + stretch * (normal @ factor.T)
    draws[:, 2] = np.clip(draws[:, 2], -MAX_BEND, MAX_BEND)
    return np.asarray(draws)


def _shifted(draws: Floats) -> Floats:
    """Shift the draws by one: both curves use the same random numbers, so equal positions are not independent."""
    return np.roll(draws, 1, axis=0)


def _bounds(draws: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of each column, NaN as unknown. Not interpolated, as values may be infinite."""
    tail = round((1 - LEVEL) / 2 * len(draws))
    unknown = np.isnan(draws)
    low = np.partition(np.where(unknown, -np.inf, draws), tail, axis=0)[tail]
    high = np.partition(np.where(unknown, np.inf, draws), len(draws) - tail - 1, axis=0)[-tail - 1]
    return low, high

"""Data scaling: the fit finds what the data were made of, and says honestly how sure it is."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.scaling import FitError, ScalingFit, common_errors, crossings, data_ratio, fit_scaling

RATIOS = np.array((0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.4, 0.6, 0.8, 1.0))
IMAGES = RATIOS * 50_000
REPETITIONS = 150


def power(images: NDArray[np.float64], floor: float = 0.08, scale: float = 5.0, exponent: float = 0.35) -> NDArray:
    """Return floor + scale n^-exponent."""
    return floor + scale * images**-exponent


def runs(
    seeds: int, repetition: int, noise: float = 0.006, images: NDArray[np.float64] = IMAGES, **law: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the errors of some seeds at each number of images."""
    sizes = np.repeat(images, seeds)
    return sizes, power(sizes, **law) + np.random.default_rng(repetition).normal(0, noise, len(sizes))


def fitted(seeds: int, repetition: int, **more: Any) -> ScalingFit:
    """Fit drawn runs."""
    return fit_scaling(*runs(seeds, repetition, **more))


def test_known_parameters_are_recovered() -> None:
    """Without noise the floor, scale and exponent come out as they went in."""
    fit = fit_scaling(IMAGES, power(IMAGES))
    assert (fit.floor, fit.scale, fit.exponent) == pytest.approx((0.08, 5.0, 0.35), rel=1e-4)
    assert fit.has_floor
    assert fit.error([500, 5_000]) == pytest.approx(power(np.array([500, 5_000])), rel=1e-6)


def test_parameters_are_recovered_from_noisy_runs() -> None:
    """With three seeds' noise they come out near."""
    fits = [fitted(3, repetition) for repetition in range(20)]
    assert np.median([fit.exponent for fit in fits]) == pytest.approx(0.35, abs=0.03)
    assert np.median([fit.floor for fit in fits]) == pytest.approx(0.08, abs=0.02)


@pytest.mark.parametrize("exponent", [-0.35, -1e-9, 0.0, 1e-9, 0.02])
def test_a_bend_the_power_law_has_not_is_followed_and_promises_no_floor(exponent: float) -> None:
    """Error that falls faster with each doubling, as where data are few, or evenly, is fitted; no floor is claimed."""
    share = np.log(IMAGES / 500) / np.log(100)
    bend = exponent * np.log(100)
    errors = 0.96 - 0.35 * (np.expm1(-bend * share) / np.expm1(-bend) if bend else share)
    fit = fit_scaling(IMAGES, errors)
    assert fit.error(IMAGES) == pytest.approx(errors, abs=1e-5)
    assert fit.exponent == pytest.approx(exponent, abs=1e-3)
    assert not fit.has_floor
    assert fit.images_for(errors) == pytest.approx(IMAGES, rel=1e-3)


@pytest.mark.parametrize(("seeds", "images"), [(1, IMAGES), (3, IMAGES), (1, IMAGES[::4])], ids=["1", "3", "1 of 4"])
@pytest.mark.slow
def test_the_interval_covers_the_truth_at_its_rate(seeds: int, images: NDArray[np.float64]) -> None:
    """Of many simulated studies about 95 % have the true curve inside their interval, with four runs in all too."""
    at = np.array([500.0, 2_000, 8_000, 50_000])
    inside = np.zeros(len(at))
    for repetition in range(REPETITIONS):
        low, high = fitted(seeds, repetition, images=images).interval(at)
        inside += (low <= power(at)) & (power(at) <= high)
    # Three standard errors of a share of 0.95 in 150, and as much again for what is not linear in the curve.
    assert np.all(inside / REPETITIONS > 0.89)
    assert np.all(inside / REPETITIONS < 0.995)


def test_fewer_seeds_make_a_wider_interval() -> None:
    """One seed tells less than three, three less than ten."""
    widths = []
    for seeds in (1, 3, 10):
        bounds = [fitted(seeds, repetition).interval([5_000]) for repetition in range(20)]
        widths.append(float(np.median([high - low for low, high in bounds])))
    assert widths[0] > 1.3 * widths[1] > 1.3**2 * widths[2]


def test_a_curve_that_misses_the_means_says_so_and_is_less_sure() -> None:
    """A law that is none of the fit's widens the interval beyond what the seeds' spread alone would give."""
    sizes, errors = runs(3, 1, noise=0.001)
    kinked = errors + np.where(sizes == 7_500, 0.03, 0.0)
    straight, bent = fit_scaling(sizes, errors), fit_scaling(sizes, kinked)
    assert not straight.lacks_fit
    assert bent.lacks_fit
    assert np.ptp(bent.interval([5_000])) > 3 * np.ptp(straight.interval([5_000]))


def test_what_the_curve_misses_does_not_average_away() -> None:
    """Twenty seeds make the means sharper, not the law truer: the interval stays about as wide as with one."""
    widths = []
    for seeds in (1, 20):
        sizes, errors = runs(seeds, 1, noise=0.001)
        fit = fit_scaling(sizes, errors + np.where(sizes == 7_500, 0.03, 0.0))
        widths.append(float(np.ptp(fit.interval([5_000]))))
    assert widths[1] > 0.5 * widths[0]


def test_the_ratio_of_two_curves_is_that_of_their_laws() -> None:
    """An architecture that needs 1.3 times the images everywhere is found to, and its interval covers that."""
    hits, ratios = 0, []
    for repetition in range(60):
        first = fit_scaling(*runs(3, repetition))
        second = fit_scaling(*runs(3, repetition + 1_000, scale=5.0 * 1.3**0.35))
        found = data_ratio(first, second, [0.3])
        ratios.append(float(found.ratio[0]))
        hits += bool(found.low[0] <= 1.3 <= found.high[0])
    assert np.median(ratios) == pytest.approx(1.3, rel=0.02)
    assert hits >= 51  # of 60, at 95 %: 57 ± 1.7


def test_the_same_runs_need_the_same_images_and_never_cross() -> None:
    """A study compared with itself: ratio 1, an interval around it, no crossing."""
    fit = fitted(3, 0)
    low, high = common_errors(fit, fit) or (0.0, 0.0)
    found = data_ratio(fit, fit, [low, (low + high) / 2, high])
    assert found.ratio == pytest.approx([1.0, 1.0, 1.0])
    assert np.all((found.low < 1) & (found.high > 1))
    assert crossings(fit, fit) == []


def test_a_crossing_is_found_with_its_interval() -> None:
    """Curves that cross at 5,000 images by construction are said to, within an interval that holds it."""
    scale = 5.0 * 5_000**-0.35 / 5_000**-0.5
    first, second = fitted(3, 1), fitted(3, 2, scale=scale, exponent=0.5)
    (crossing,) = crossings(first, second)
    assert crossing.images == pytest.approx(5_000, rel=0.15)
    assert crossing.low is not None
    assert crossing.high is not None
    assert crossing.low < 5_000 < crossing.high


def test_a_crossing_that_may_lie_anywhere_has_no_ends() -> None:
    """Where noise hides which curve is lower, the interval is open, not invented."""
    found = [crossings(fitted(1, 10 + n, noise=0.03), fitted(1, 50 + n, noise=0.03)) for n in range(10)]
    chance = [crossing for several in found for crossing in several]
    assert chance
    assert sum(crossing.low is None or crossing.high is None for crossing in chance) > len(chance) / 2


def test_curves_with_no_error_in_common_are_not_compared() -> None:
    """One that is always better than the other ever gets shares no error with it."""
    low, high = fit_scaling(IMAGES, power(IMAGES)), fit_scaling(IMAGES, 2 + power(IMAGES))
    assert common_errors(low, high) is None


def test_an_error_out_of_reach_needs_infinitely_many_images() -> None:
    """Below the floor no number of images is enough."""
    assert fit_scaling(IMAGES, power(IMAGES)).images_for([0.05])[0] == np.inf


@pytest.mark.parametrize("sizes", [(500,), (500, 1_000, 2_000), (500, 500, 1_000, 2_000, 2_000)])
def test_fewer_than_four_sizes_carry_no_curve(sizes: tuple[int, ...]) -> None:
    """Three parameters through three numbers of images would fit anything."""
    with pytest.raises(FitError, match="4 different numbers of images"):
        fit_scaling(sizes, power(np.array(sizes, dtype=float)))


@pytest.mark.parametrize(
    "errors", [np.full(13, 0.19), power(IMAGES)[::-1], np.zeros(13)], ids=["constant", "rising", "zero"]
)
def test_errors_that_do_not_fall_carry_no_curve(errors: NDArray[np.float64]) -> None:
    """What more images do not make better is refused with a sentence."""
    with pytest.raises(FitError, match="do not make it better"):
        fit_scaling(IMAGES, errors)


def test_a_step_carries_no_curve() -> None:
    """All gained by the first few images: how the curve bends there cannot be told."""
    with pytest.raises(FitError, match="bend"):
        fit_scaling(IMAGES, np.where(IMAGES > 600, 0.3, 0.9))


def test_the_same_runs_give_the_same_interval() -> None:
    """Nothing is drawn from an unseeded source."""
    first, again = fitted(3, 4), fitted(3, 4)
    assert np.array_equal(first.interval(IMAGES), again.interval(IMAGES))

"""Which runs share a job, and which pool takes a run: no swarm of tiny jobs, none that outgrows its limit."""

import math
import random

import pytest

from slurm.bundles import LIMIT_SHARE, bundle, bundle_within, chunks
from slurm.pools import Rule, candidate_pools, spread

HOUR = 3600.0


def sized(*seconds: float) -> dict[str, float]:
    return {f"run-{index}": value for index, value in enumerate(seconds)}


def test_short_runs_share_jobs_of_about_the_target_length() -> None:
    """156 runs of a minute become six jobs of half an hour, not 156 jobs."""
    jobs = bundle(sized(*[60.0] * 156), target_s=HOUR / 2, limit_s=24 * HOUR)
    assert [len(job) for job in jobs] == [30, 30, 30, 30, 30, 6]


def test_long_runs_go_alone() -> None:
    """Runs longer than the target have a job each, also beyond the time limit: they go on from their checkpoints."""
    assert [len(job) for job in bundle(sized(2 * HOUR, 30 * HOUR), target_s=HOUR, limit_s=24 * HOUR)] == [1, 1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_no_job_of_several_runs_outgrows_its_limit_and_every_run_is_in_one(seed: int, workers: int) -> None:
    """For any mixture of lengths."""
    drawn = random.Random(seed)
    seconds = sized(*(drawn.expovariate(1 / 900) for _ in range(200)))
    jobs = bundle(seconds, target_s=drawn.choice([0, 600, 1800, 9000]), limit_s=2 * HOUR, workers=workers)
    assert sorted(run for job in jobs for run in job) == sorted(seconds)
    assert all(len(job) <= workers or sum(seconds[run] for run in job) <= LIMIT_SHARE * 2 * HOUR for job in jobs)


def test_a_job_that_packs_several_runs_on_its_gpu_has_work_for_all_of_them() -> None:
    """Even where one run alone would fill the target, or the time limit."""
    assert [len(job) for job in bundle(sized(*[HOUR] * 6), target_s=HOUR / 2, limit_s=HOUR / 4, workers=3)] == [3, 3]
    assert [len(job) for job in bundle(sized(*[HOUR] * 6), target_s=HOUR / 2, limit_s=24 * HOUR, workers=3)] == [3, 3]


def test_few_allowed_jobs_become_longer_and_what_does_not_fit_is_left_out() -> None:
    """A submit limit of three: first longer jobs, and beyond the time limit fewer runs."""
    runs = sized(*[600.0] * 12)
    assert [len(job) for job in bundle_within(runs, target_s=0, limit_s=10 * HOUR, most=3)] == [4, 4, 4]
    assert sum(map(len, bundle_within(runs, target_s=0, limit_s=HOUR / 2, most=3))) == 6
    assert len(bundle_within(runs, target_s=0, limit_s=HOUR, most=None)) == 12


def test_where_the_site_alone_knows_the_limit_the_target_decides() -> None:
    """And where few jobs are allowed, their number: of none, too."""
    runs = sized(*[600.0] * 12)
    assert [len(job) for job in bundle(runs, target_s=HOUR / 2, limit_s=math.inf)] == [3, 3, 3, 3]
    assert [len(job) for job in bundle_within(runs, target_s=0, limit_s=math.inf, most=1)] == [12]
    assert bundle_within(runs, target_s=0, limit_s=math.inf, most=0) == []


def test_arrays_are_cut_at_the_largest_the_cluster_takes() -> None:
    """Slurm's MaxArraySize caps the index."""
    assert [len(piece) for piece in chunks(range(2500), 1000)] == [1000, 1000, 500]


def test_the_first_rule_that_matches_decides() -> None:
    """A value matches itself, a list any of its items, and a rule without `when` everything."""
    rules = [Rule(when={"seed": 42}, pool="a"), Rule(when={"ratio": [0.1, 0.2]}, pool=["b", "c"]), Rule(pool="d")]
    assert candidate_pools({"seed": 42, "ratio": 0.1}, rules) == ["a"]
    assert candidate_pools({"seed": 43, "ratio": 0.2}, rules) == ["b", "c"]
    assert candidate_pools({"seed": 43, "ratio": 1.0}, rules) == ["d"]
    assert candidate_pools({"seed": 43, "ratio": 1.0}, rules[:1]) == []


def test_runs_that_several_pools_may_take_are_spread_by_speed() -> None:
    """A pool twice as fast gets about twice the runs, and a run of one pool stays there."""
    chosen = spread([{"fast": 1.0, "slow": 2.0}] * 30 + [{"slow": 2.0}])
    assert chosen.count("fast") == 20
    assert chosen[-1] == "slow"
    assert spread([{"fast": 1.0, "slow": 2.0}] * 30 + [{"slow": 2.0}]) == chosen

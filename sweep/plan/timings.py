"""What the runs of a sweep took, for the cost model: from the results and progress that a look has read anyway. Pure.

A run that went on on something else than it began on says nothing of either and is left out; runs that shared a GPU
count their part of its time.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import NamedTuple

from slurm.devices import CPU
from slurm.jobs import Submission
from slurm.pools import LOCAL
from sweep.config.operations import PASSES_TRAINING, device_kind
from sweep.config.schema import PlacedRun, Sweep
from sweep.plan.cost import CostModel, Timed
from sweep.status.evidence import Evidence
from sweep.status.look import Look
from trainer.records.attempt import Attempt
from trainer.records.result import Hardware, Result
from trainer.records.run import Other, RunSpec, other_work

Where = tuple[str, str]  # host and job: what runs that share a GPU have in common


class Span(NamedTuple):
    """From when to when a process held its device."""

    began: datetime
    ended: datetime


def learn(sweep: Sweep, seen: Look) -> CostModel:
    """A cost model of what this sweep's runs have taken so far."""
    return CostModel(timings(sweep, seen), sweep.networks)


def timings(sweep: Sweep, seen: Look) -> list[Timed]:
    """Time every run that is done, and every one in work or interrupted with epochs to go by, in the plan's order."""
    spans = _spans(seen.evidence)
    found = []
    for placed in sweep.runs:
        evidence = seen.evidence.get(placed.id, Evidence())
        if evidence.result is not None:
            one = _finished(sweep, placed, evidence.result, spans)
        else:
            one = _in_work(sweep, placed, evidence, seen.submissions, spans)
        if one is not None:
            found.append(one)
    return found


def _finished(sweep: Sweep, placed: PlacedRun, result: Result, spans: Mapping[Where, list[Span]]) -> Timed | None:
    """Time a finished run; the work that interruptions lost is not in its epochs' seconds, and hides its start."""
    hardware, timing, epochs = result.hardware, result.timing, result.training.epochs
    moved = len(hardware.stretches) > 1 or (not hardware.stretches and len({one.host for one in result.attempts}) > 1)
    moved = moved or (hardware.gpus != [] and len(hardware.gpus) != sweep.execution.gpus_per_run)
    images = min(result.data.train_samples, result.data.val_samples)
    other_run = other_work(result.commitment, placed.spec, None) is Other.RUN
    if moved or other_run or images <= 0 or timing.train_seconds <= 0:
        return None
    share = _share(result.attempts, spans) if hardware.gpus else 1.0
    rest = timing.total_seconds - timing.train_seconds - timing.evaluation_seconds
    return Timed(
        spec=RunSpec(run=result.run, training=result.training),
        pool=hardware.pool,
        kind=_kind(sweep, hardware),
        precisions=frozenset((result.training.precision, hardware.precision)),
        image_size=placed.image_size,
        train_samples=result.data.train_samples,
        train_s=share * timing.train_seconds / (epochs * result.data.train_samples),
        val_s=share * timing.evaluation_seconds / (epochs * result.data.val_samples),
        start_s=share * max(rest, 0.0) if len(result.attempts) == 1 else None,
        finished=True,
    )


def _kind(sweep: Sweep, hardware: Hardware) -> str | None:
    """The name of the device that a run computed on; where the table has not the GPU, by its pool's own description."""
    if not hardware.gpus:
        return None
    known = device_kind(hardware.gpus[0])
    pool = sweep.cluster.pools.get(hardware.pool) if sweep.cluster else None
    found = known or (pool.device if pool and pool.device.is_own else None)
    return found.name if found else None


def _in_work(
    sweep: Sweep,
    placed: PlacedRun,
    evidence: Evidence,
    submissions: Sequence[Submission],
    spans: Mapping[Where, list[Span]],
) -> Timed | None:
    """Time an unfinished run by the epochs of its newest attempt, but for the first, which warms up."""
    attempt, progress, spec = evidence.attempt, evidence.progress, placed.spec
    if attempt is None or progress is None or progress.attempt != attempt.number:
        return None
    if evidence.commitment is None or other_work(evidence.commitment, spec, None):
        return None
    pool = _pool(submissions, attempt.submission, spec.run.id)
    seconds = progress.history.epoch_seconds[progress.start_epoch + 1 :]
    if pool is None or not seconds or median(seconds) <= 0:
        return None
    device = sweep.cluster.pools[pool].device if sweep.cluster and pool in sweep.cluster.pools else CPU
    share = 1.0
    if device.is_gpu:
        share = _share([attempt.model_copy(update={"ended": progress.heartbeat})], spans)
    # An epoch's seconds are not told apart: a trained image costs three passes, a validated one a single pass.
    pass_s = share * median(seconds) / (PASSES_TRAINING * placed.train_samples + placed.val_samples)
    return Timed(
        spec=spec,
        pool=pool,
        kind=device.name if device.is_gpu else None,
        precisions=frozenset((spec.training.precision,)),
        image_size=placed.image_size,
        train_samples=placed.train_samples,
        train_s=PASSES_TRAINING * pass_s,
        val_s=pass_s,
        start_s=None,
        finished=False,
    )


def _pool(submissions: Sequence[Submission], token: str | None, run_id: str) -> str | None:
    """The pool that an attempt's submission sent its run to; None for an attempt started by hand."""
    for submission in submissions:
        if submission.token == token:
            arrays = submission.arrays
            return next((one.pool for one in arrays if any(run_id in task for task in one.tasks)), LOCAL)
    return None


def _spans(evidence: Mapping[str, Evidence]) -> dict[Where, list[Span]]:
    """When each job's processes held their device, by host and job."""
    found: dict[Where, list[Span]] = {}
    for one in evidence.values():
        attempts: Sequence[Attempt] = one.result.attempts if one.result else [one.attempt] if one.attempt else []
        for attempt in attempts:
            beat = one.progress.heartbeat if one.progress else None
            ended = attempt.ended or beat
            if ended is not None and ended > attempt.started:
                found.setdefault((attempt.host, attempt.job), []).append(Span(attempt.started, ended))
    return found


def _share(attempts: Sequence[Attempt], spans: Mapping[Where, list[Span]]) -> float:
    """The part of its time that a run had the device to itself: an hour shared by two counts half."""
    whole = mine = 0.0
    for attempt in attempts:
        if attempt.ended is None or attempt.ended <= attempt.started:
            continue
        began, ended = attempt.started, attempt.ended
        beside = [one for one in spans.get((attempt.host, attempt.job), []) if one.began < ended and one.ended > began]
        moments = {began, ended, *(moment for one in beside for moment in one if began < moment < ended)}
        for left, right in itertools.pairwise(sorted(moments)):
            at_once = sum(one.began <= left and one.ended >= right for one in beside)  # this attempt is one of them
            whole += (right - left).total_seconds()
            mine += (right - left).total_seconds() / max(at_once, 1)
    return mine / whole if whole else 1.0

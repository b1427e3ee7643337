"""How chosen runs are shared out to jobs, and what each job is told to do. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from slurm.container import seeing
from slurm.jobs import ArrayRecord
from slurm.limits import ClusterLimits
from slurm.pools import LOCAL
from sweep.config.schema import Cluster, Sweep
from sweep.plan.rows import PlanRow
from sweep.status.folder import SweepFolder
from sweep.submit.arrays import plan_arrays
from sweep.submit.remedies import Change
from trainer.records.run import Bundle, Options


class Batch(NamedTuple):
    """Runs that one bundle hands out, by task. workers: of a task at a time. array: what Slurm, if it, is asked for."""

    pool: str
    tasks: list[list[str]]
    options: Options
    workers: int = 1
    mps: bool = False
    array: ArrayRecord | None = None


def local_batches(sweep: Sweep, rows: Sequence[PlanRow], *, threads: int) -> list[Batch]:
    """One task of all runs, the longest first, so that the last worker to finish finishes early.

    threads: that each worker computes with.
    """
    ordered = sorted(rows, key=lambda row: -row.remaining_s)
    options = _options(sweep, device=sweep.execution.device, threads=threads)
    return [Batch(LOCAL, [[row.id for row in ordered]], options)]


def slurm_batches(
    sweep: Sweep,
    cluster: Cluster,
    rows: Sequence[PlanRow],
    limits: ClusterLimits,
    changes: Mapping[str, Change],
    avoid: Mapping[str, Collection[str]] = {},
) -> list[Batch]:
    """One batch an array. changes: by run id, what a retry asks for beyond the pool's. avoid: by pool, bad nodes."""
    batches = []
    for array in plan_arrays(sweep, cluster, rows, limits, changes, avoid):
        pool = cluster.pools[array.pool]
        device = sweep.execution.device
        if device == "auto":  # a GPU pool's runs insist on a GPU: falling back to the CPU would waste days unnoticed
            device = "cpu" if pool.device == "cpu" else "cuda"
        options = _options(sweep, device=device, threads=pool.cpus * sweep.execution.gpus_per_run)
        options = options.model_copy(update={"stall_s": cluster.section.stall_s})
        asked = seeing(array.resources, SweepFolder(sweep.folder).seen_by_jobs(sweep.data))
        sent = array.model_copy(update={"resources": asked})
        batches.append(Batch(array.pool, array.tasks, options, cluster.section.runs_per_gpu, pool.mps, sent))
    return batches


def bundles(sweep: Sweep, token: str, rows: Sequence[PlanRow], batches: Sequence[Batch]) -> Iterator[Bundle]:
    """The files that tell the jobs of a submission what to do, one a batch."""
    specs = {row.id: row.placed.spec for row in rows}
    for batch in batches:
        yield Bundle(
            submission=token,
            pool=batch.pool,
            data=sweep.data.resolve(),
            runs_folder=SweepFolder(sweep.folder).runs.resolve(),
            options=batch.options,
            workers=batch.workers,
            mps=batch.mps,
            tasks=[[specs[run_id] for run_id in task] for task in batch.tasks],
        )


def _options(sweep: Sweep, *, device: str, threads: int) -> Options:
    return Options(
        device=device,
        processes=sweep.execution.gpus_per_run,
        threads=threads,
        checkpoint_interval_s=sweep.execution.checkpoint_interval_s,
        keep_checkpoints=sweep.execution.keep_checkpoints,
    )

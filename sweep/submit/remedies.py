"""Which runs to try again, and what to do differently, from the cause of each. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from slurm.jobs import Resources
from slurm.limits import ClusterLimits, PartitionLimits
from slurm.pools import Pool
from sweep.errors import InputError
from sweep.plan.rows import PlanRow
from sweep.status.state import ON_ITS_WAY, State
from sweep.words import nearest_run
from trainer.records.attempt import Cause

RETRIED = (State.FAILED, State.INTERRUPTED, State.STALLED)
MORE_MEMORY, MORE_TIME = 2.0, 2.0
# What would only fail again with everything as it is: these wait until the user names the run, or asks for every one.
ONLY_WHEN_ASKED = {
    Cause.EXCEPTION: "raised an exception and would again; mend it, then name the run or say '--failed'",
    Cause.DIVERGED: "diverged and would again with the same recipe; change the recipe, or name the run",
}


class Change(NamedTuple):
    """What a run is given beyond its pool's resources; None and () where nothing changes."""

    pool: str | None = None
    memory_gb: float | None = None
    time_limit_min: int | None = None
    exclude: tuple[str, ...] = ()

    def apply(self, usual: Resources) -> Resources:
        """Change a pool's resources."""
        changes: dict[str, object] = {"exclude": sorted({*usual.exclude, *self.exclude})}
        if self.memory_gb is not None:
            changes["memory_gb"] = self.memory_gb
        if self.time_limit_min is not None:
            changes["time_limit_min"] = self.time_limit_min
        return usual.model_copy(update=changes)


class Ground(NamedTuple):
    """What a remedy on Slurm may choose from.

    pools, and what a job in each usually asks for; the partitions' limits; by run id what its last job had, and where.
    mended: whether nothing that happened on a node is held against it any more.
    """

    pools: Mapping[str, Pool]
    usual: Mapping[str, Resources]
    limits: ClusterLimits
    last: Mapping[str, Resources]
    last_pool: Mapping[str, str]
    mended: bool = False


class Remedy(NamedTuple):
    """A run and what trying it again comes to. again: whether it makes sense to try."""

    row: PlanRow
    again: bool
    words: str
    change: Change = Change()


def choose(rows: Sequence[PlanRow], names: Sequence[str], *, every: bool, ground: Ground | None) -> list[Remedy]:
    """Find the remedy of each named run, or of each failed or interrupted one when none is named.

    every: exceptions too, as if the user had named those runs. ground: None without Slurm. Raises InputError for a name
    that is no run, and for a run that is done or on its way.
    """
    if names:
        return [remedy(_named(rows, name), asked=True, ground=ground) for name in names]
    among = [row for row in rows if row.status.state in RETRIED]
    return [remedy(row, asked=every and row.status.cause is Cause.EXCEPTION, ground=ground) for row in among]


def remedy(row: PlanRow, *, asked: bool, ground: Ground | None = None) -> Remedy:
    """Say what trying a run again comes to; asked: the user wants it whatever the cause."""
    state, cause, epoch = row.status.state, row.status.cause, row.status.epoch
    start = f"goes on after epoch {epoch}" if epoch else "starts again"
    if state is State.STALE:
        return Remedy(row, True, "is trained anew; its old result is set aside")
    if state is State.STALLED:
        return Remedy(row, True, f"its job is ended; it {start}")
    if cause in ONLY_WHEN_ASKED and not (asked or row.status.passing):
        return Remedy(row, False, ONLY_WHEN_ASKED[cause])
    if ground is None or row.id not in ground.last:
        if cause is Cause.HOST_OOM:
            return Remedy(row, True, f"{start}; it ran out of memory: give it more with '--workers 1'")
        return Remedy(row, True, start)
    had = ground.last[row.id]
    usual = ground.usual[ground.last_pool[row.id]]
    kept = _kept(had, usual)._replace(exclude=() if ground.mended else tuple(had.exclude))
    partition = _limits_of(had, ground.limits)
    match cause:
        case Cause.HOST_OOM:
            return _more_memory(row, start, kept, had, usual, partition)
        case Cause.TIMEOUT:
            return _more_time(row, start, kept, had, usual, partition, asked=asked)
        case Cause.CUDA_OOM:
            return _larger_gpu(row, start, kept, ground, asked=asked)
        case Cause.NODE_FAIL | Cause.LAUNCH_FAILED | Cause.GPU_FAULT if row.status.node and not ground.mended:
            return _other_node(row, start, kept, partition)
        case _:
            return Remedy(row, True, start, kept)


def _kept(had: Resources, usual: Resources) -> Change:
    """Keep what an earlier retry gave: a run that needed more memory needs it still."""
    return Change(
        memory_gb=had.memory_gb if had.memory_gb and had.memory_gb > (usual.memory_gb or 0.0) else None,
        time_limit_min=had.time_limit_min if (had.time_limit_min or 0) > (usual.time_limit_min or math.inf) else None,
    )


def _more_memory(
    row: PlanRow, start: str, kept: Change, had: Resources, usual: Resources, partition: PartitionLimits | None
) -> Remedy:
    if had.memory_gb is None:
        return Remedy(row, True, f"{start}; its pool asks for no memory: give it a 'memory_gb' if it fails again", kept)
    wanted = max(had.memory_gb * MORE_MEMORY, usual.memory_gb or 0.0)  # the cluster file may have been mended meanwhile
    cap = partition and min(partition.node_memory_gb, partition.max_memory_gb or partition.node_memory_gb)
    if cap is not None and wanted > cap:
        if had.memory_gb >= cap:
            words = f"had all the {cap:g} GB a node of {_partition(had)} gives; it needs another pool"
            return Remedy(row, False, words)
        wanted = cap
    return Remedy(
        row, True, f"{start} with {wanted:g} GB of memory instead of {had.memory_gb:g}", kept._replace(memory_gb=wanted)
    )


def _more_time(
    row: PlanRow,
    start: str,
    kept: Change,
    had: Resources,
    usual: Resources,
    partition: PartitionLimits | None,
    *,
    asked: bool,
) -> Remedy:
    if had.time_limit_min is None:
        return Remedy(
            row, True, f"{start}; its pool asks for no time: give it a 'time_limit_min' if it fails again", kept
        )
    wanted = max(round(had.time_limit_min * MORE_TIME), usual.time_limit_min or 0)
    cap = partition.time_limit_min if partition else None
    if cap is not None and wanted > cap:
        wanted = max(cap, had.time_limit_min)
    if wanted > had.time_limit_min:
        words = f"{start} with {wanted} min instead of {had.time_limit_min}"
        return Remedy(row, True, words, kept._replace(time_limit_min=wanted))
    most = f"the {had.time_limit_min} min that {_partition(had)} allows"
    if row.status.state is State.FAILED and not asked:
        return Remedy(row, False, f"made no checkpoint within {most}; it needs another pool, or a shorter epoch")
    return Remedy(row, True, f"{start} with {most} again", kept)


def _limits_of(had: Resources, limits: ClusterLimits) -> PartitionLimits | None:
    """The limits of the partition a job had; None where they are not known, as of a cluster no pool names any more."""
    there = limits if had.clusters is None else limits.others.get(had.clusters)
    return there and there.partitions.get(had.partition or there.default_partition or "")


def _partition(had: Resources) -> str:
    return f"partition {had.partition}" if had.partition else "the default partition"


def _larger_gpu(row: PlanRow, start: str, kept: Change, ground: Ground, *, asked: bool) -> Remedy:
    at = ground.last_pool[row.id]
    size = ground.pools[at].gpu_memory_gb
    larger = sorted(
        (pool.gpu_memory_gb, name)
        for name, pool in ground.pools.items()
        if pool.gpu_memory_gb and size and pool.gpu_memory_gb > size
    )
    if larger:
        words = f"{start} in pool {larger[0][1]} with {larger[0][0]:g} GB a GPU instead of {size:g} in {at}"
        return Remedy(row, True, words, kept._replace(pool=larger[0][1]))
    if asked:
        return Remedy(row, True, f"{start} in pool {at}, whose GPU it outgrew", kept)
    reason = (
        f"no pool has more than the {size:g} GB of {at}" if size else f"the cluster file gives {at} no gpu_memory_gb"
    )
    return Remedy(row, False, f"outgrew its GPU, and {reason}; use a smaller batch, or name the run")


def _other_node(row: PlanRow, start: str, kept: Change, partition: PartitionLimits | None) -> Remedy:
    node = row.status.node or ""
    exclude = tuple(sorted({*kept.exclude, node}))
    if partition is not None and len(exclude) >= partition.nodes:
        return Remedy(
            row, True, f"{start}, on {node} too, for the partition has no other node", kept._replace(exclude=())
        )
    return Remedy(row, True, f"{start} on another node than {', '.join(exclude)}", kept._replace(exclude=exclude))


def _named(rows: Sequence[PlanRow], name: str) -> PlanRow:
    for row in rows:
        if row.id == name:
            if row.status.state in (*ON_ITS_WAY, State.DONE):
                raise InputError(f"{name} is {row.status.state.value}; there is nothing to retry")
            return row
    raise InputError(f"no run '{name}' in this sweep{nearest_run(name, [row.id for row in rows])}")

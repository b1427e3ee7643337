"""Where a sweep's runs go, the cluster or this machine, and what a submission there would consist of.

The two differ in how runs are put into jobs and in what each is given; what starts them is an executor.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from slurm.commands import NoSuchCluster, SlurmError
from slurm.container import unmountable
from slurm.executor import Executor
from slurm.fit import delays, problems, unchecked
from slurm.limits import ClusterLimits, read_limits, read_nodes
from slurm.local import Local
from slurm.machine import cores, default_workers
from slurm.scheduler import Slurm
from slurm.submission import on_login_node, resources
from sweep.config.schema import Cluster, Sweep, sharing
from sweep.errors import InputError, MachineError
from sweep.plan.memory import needs
from sweep.plan.rows import PlanRow
from sweep.status.bad_nodes import BadNode
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from sweep.submit.batches import Batch, local_batches, slurm_batches
from sweep.submit.remedies import Change, Ground
from trainer.records.code import Code


class Planned(NamedTuple):
    """A submission before it is made. jobs: how many will be started; notes: what the user should know of it.

    left_out: runs that Slurm takes no jobs of now, for `full`, the limits that are reached.
    """

    executor: Executor
    batches: Sequence[Batch]
    jobs: int
    notes: Sequence[str]
    left_out: frozenset[str] = frozenset()
    full: Sequence[str] = ()


class Target(Protocol):
    """Where runs go. waits: whether a submission waits for its end unless told otherwise."""

    waits: bool

    def plan(
        self,
        rows: Sequence[PlanRow],
        changes: Mapping[str, Change],
        bad: Sequence[BadNode] = (),
        codes: Mapping[str, Code] = {},
    ) -> Planned:
        """Put runs into jobs. changes: by run id, what a retry gives beyond the usual; codes: what each runs.

        bad: nodes to keep away from.
        """

    def ground(self, seen: Look) -> Ground | None:
        """What remedies may choose from; None where there is nothing to choose."""

    def has_room(self, rows: Sequence[PlanRow]) -> bool:
        """Whether one of these runs can be sent now, which the next plan goes by. Raises InputError."""


def target(sweep: Sweep, *, local: bool, workers: int | None = None) -> Target:
    """Choose the cluster where the sweep names one and Slurm is here, else this machine.

    Asks what the cluster allows, and refuses pools that it has not. Raises InputError, MachineError.
    """
    if sweep.cluster is None or local or not on_login_node():
        return Here(sweep, workers)
    if workers:
        raise InputError("'--workers' counts for this machine; on Slurm 'cluster.runs_per_gpu' and 'max_parallel' do")
    return OnSlurm(sweep, sweep.cluster, read_cluster_limits(sweep, sweep.cluster))


class OnSlurm:
    """Runs go into the pools of a cluster file."""

    waits = False

    def __init__(self, sweep: Sweep, cluster: Cluster, limits: ClusterLimits) -> None:
        self.sweep = sweep
        self.cluster = cluster
        self.limits = limits

    def plan(
        self,
        rows: Sequence[PlanRow],
        changes: Mapping[str, Change],
        bad: Sequence[BadNode] = (),
        codes: Mapping[str, Code] = {},
    ) -> Planned:
        """Put runs into jobs. Raises InputError for runs that do not fit on the GPUs of the pool they are sent to."""
        warnings = _check_gpu_memory(self.sweep, self.cluster, rows, changes)
        avoid, notes = self._avoided(bad)
        batches = slurm_batches(self.sweep, self.cluster, rows, self.limits, changes, avoid, codes)
        sent = {run_id for batch in batches for task in batch.tasks for run_id in task}
        left_out = [row for row in rows if row.id not in sent]
        full = self._full(batches, {one.pool for row in left_out for one in row.placed.everywhere})
        if left_out:
            notes.append(f"{len(left_out)} runs are left for later: {'; '.join(full)}")
        for name in dict.fromkeys(batch.pool for batch in batches):
            pool = self.cluster.pools[name]
            waits = delays(pool, self.limits, **sharing(self.sweep, self.cluster))
            notes += [f"{name}: {words}" for words in (*waits, unchecked(pool, self.limits)) if words]
        notes += warnings
        submissions = SweepFolder(self.sweep.folder).submissions
        executor = Slurm(submissions, max_parallel=self.cluster.section.max_parallel)
        ids = frozenset(row.id for row in left_out)
        return Planned(executor, batches, sum(len(batch.tasks) for batch in batches), notes, ids, full)

    def has_room(self, rows: Sequence[PlanRow]) -> bool:
        try:
            self.limits = read_cluster_limits(self.sweep, self.cluster)
        except MachineError:  # it does not answer now, and is asked again later
            return False
        return bool(self.plan(rows, {}).batches)

    def _avoided(self, bad: Sequence[BadNode]) -> tuple[dict[str, frozenset[str]], list[str]]:
        """By pool, which of the bad nodes its jobs keep away from, and what is to be said of that."""
        avoid: dict[str, frozenset[str]] = {}
        notes = [node.words for node in bad]
        for name, pool in self.cluster.pools.items() if bad else ():
            try:
                names = self.limits.of(pool.clusters).names(pool.partition)
                nodes = read_nodes(names, pool.clusters) - {*pool.exclude}
            except SlurmError as error:
                notes.append(f"{name}: its nodes could not be listed, so its jobs may still go there: {error}")
                continue
            here = nodes & {node.name for node in bad}
            if here and here == nodes:
                notes.append(f"{name}: has no nodes but {', '.join(sorted(here))}, so its jobs still go there")
            elif here:
                avoid[name] = here
        return avoid, notes

    def _full(self, batches: Sequence[Batch], pools: Collection[str]) -> list[str]:
        """Say which limits leave no room for more jobs in these pools once the batches are sent."""
        shares = sharing(self.sweep, self.cluster)
        sent: Counter[str] = Counter()
        for array in (batch.array for batch in batches if batch.array):
            sent.update({cap.whose: len(array.tasks) for cap in self.limits.caps(array.resources)})
        caps = [cap for name in pools for cap in self.limits.caps(resources(self.cluster.pools[name], **shares))]
        return list(dict.fromkeys(cap.words for cap in caps if cap.left <= sent[cap.whose]))

    def ground(self, seen: Look) -> Ground:
        asked = {run_id: job.resources for run_id, job in seen.jobs.items() if job.resources is not None}
        shares = sharing(self.sweep, self.cluster)
        return Ground(
            pools=self.cluster.pools,
            usual={name: resources(pool, **shares) for name, pool in self.cluster.pools.items()},
            limits=self.limits,
            last=asked,
            last_pool={run_id: seen.jobs[run_id].pool for run_id in asked},
        )


class Here:
    """Runs are shared by workers on this machine: so many, or as the sweep says, or as the machine is good for."""

    waits = True

    def __init__(self, sweep: Sweep, workers: int | None) -> None:
        self.sweep = sweep
        self.workers = workers

    def plan(
        self,
        rows: Sequence[PlanRow],
        changes: Mapping[str, Change],
        bad: Sequence[BadNode] = (),
        codes: Mapping[str, Code] = {},
    ) -> Planned:
        """Share runs out to workers, which all run one code: those of another are left for later."""
        code = codes.get(rows[0].id) if rows else None
        left_out = frozenset(row.id for row in rows if codes.get(row.id) != code)
        rows = [row for row in rows if row.id not in left_out]
        configured, gpus = self.sweep.execution.workers, self.sweep.execution.gpus_per_run
        workers = self.workers or (configured if isinstance(configured, int) else max(1, default_workers() // gpus))
        count = min(workers, len(rows))
        batches = local_batches(self.sweep, rows, code, threads=max(1, cores() // workers)) if rows else []
        no_cluster = on_login_node() and not self.sweep.cluster
        notes = ["on this machine, for the sweep names no cluster"] if no_cluster else []
        full = ["they continue with other code, after these"] if left_out else []
        notes += [f"{len(left_out)} runs are left for later: {words}" for words in full]
        executor = Local(SweepFolder(self.sweep.folder).submissions, count, gpus)
        return Planned(executor, batches, count, notes, left_out, full)

    def ground(self, seen: Look) -> None:
        return None

    def has_room(self, rows: Sequence[PlanRow]) -> bool:
        return True


def read_cluster_limits(sweep: Sweep, cluster: Cluster) -> ClusterLimits:
    """Ask what the cluster allows, and refuse pools that it has not. Raises InputError, MachineError."""
    try:
        limits = read_limits(sorted({pool.clusters for pool in cluster.pools.values() if pool.clusters}))
    except NoSuchCluster as error:
        raise InputError(f"{cluster.file}: 'clusters' of a pool: {error}") from error
    except SlurmError as error:
        raise MachineError(f"Slurm does not answer, nothing was submitted: {error}; see 'sweep doctor'") from error
    everywhere = [one for placed in sweep.runs for one in placed.everywhere]
    used = {placed.pool for placed in everywhere}
    for name in sorted(used):
        wrong = problems(cluster.pools[name], limits, **sharing(sweep, cluster))
        if wrong:
            raise InputError(f"{cluster.file}: pool '{name}': {wrong[0]}")
    if any(cluster.pools[name].container for name in used):
        for folder in SweepFolder(sweep.folder).seen_by_jobs(sweep.data):
            problem = unmountable(folder)
            if problem:
                raise InputError(problem)
    for placed in everywhere:
        if placed.device.emulates_bf16 and placed.spec.training.precision == "bf16":
            words = f"a {placed.device.name} has no bf16, and emulates it many times slower ({placed.id})"
            raise InputError(f"{cluster.file}: pool '{placed.pool}': {words}; use 'precision: auto'")
    return limits


def _check_gpu_memory(
    sweep: Sweep, cluster: Cluster, rows: Sequence[PlanRow], changes: Mapping[str, Change]
) -> list[str]:
    """Warn of runs that may just not fit on a GPU where they go. Raises InputError for runs that do not."""
    moved = {run_id: change.pool for run_id, change in changes.items() if change.pool}
    warnings = []
    sent = ([row.placed._replace(pool=moved[row.id])] if row.id in moved else row.placed.everywhere for row in rows)
    for need in needs(sweep, (placed for each in sent for placed in each)):
        if need.problem:
            raise InputError(f"{cluster.file}: pool '{need.pool}': {'; '.join(need.problem)}")
        if need.warning:
            warnings.append(f"{need.pool}: {'; '.join(need.warning)}")
    return warnings

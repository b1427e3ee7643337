"""Find out what would go wrong before a sweep goes anywhere: the cluster, the folders, the data, the disk, torch.

Looks and reports; decides nothing and mends nothing. What it has to write to look, it removes.
"""

import contextlib
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from slurm.commands import NoSuchCluster, SlurmError, call
from slurm.fit import delays, problems, unchecked
from slurm.limits import ClusterLimits, read_limits
from slurm.machine import default_workers
from slurm.pools import Pool
from slurm.probe import Findings
from slurm.submission import resources
from sweep.config.schema import Sweep, sharing
from sweep.doctor.check import Check, Verdict, kernels, listed
from sweep.doctor.nodes import look_here, marked, probe_pools
from sweep.doctor.trial import try_pool
from sweep.errors import MachineError
from sweep.plan.memory import needs
from sweep.status.bad_nodes import bad_nodes
from sweep.status.folder import SweepFolder
from sweep.status.look import look
from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, open_dataset

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun")
BYTES_A_PARAMETER = 3 * 4  # fp32: the weight and AdamW's two moments
CHECKPOINTS = 2


def examine(sweep: Sweep, pools: Mapping[str, Pool], *, probe: bool) -> Iterator[Check]:
    """Check one thing after another. pools: of the cluster file, by name; those no run goes to are left alone.

    probe: also start one short job in each pool. Closing the iterator early ends them.
    """
    names = dict.fromkeys(one.pool for placed in sweep.runs for one in placed.everywhere)
    used = {name: pools[name] for name in names if name in pools}
    cluster = _Cluster(sweep, used)
    yield from cluster.checks()
    asked = used if cluster.on_slurm else {}
    nonce = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(marked(sweep.folder, nonce))
        except OSError as error:
            words = f"{sweep.folder} cannot be written: {error.strerror or error}"
            remedy = f"choose another folder with 'output:' in {sweep.file} or with '--output DIR'"
            yield Check("output", Verdict.PROBLEM, words, remedy)
            writable = False
        else:
            yield Check("output", Verdict.OK, f"{sweep.folder} can be written")
            writable = True
        yield from _data(sweep)
        yield from _disk(sweep, asked)
        if cluster.on_slurm:
            yield from _gpu_memory(sweep)
            yield from _bad_nodes(sweep)
        seen: dict[str, Findings] = {}
        if probe and cluster.usable and not writable:
            yield Check("nodes", Verdict.SKIPPED, "there is no output folder for them to look at")
        elif probe:
            yield from probe_pools(sweep, cluster.usable, nonce, seen)
        yield from look_at_torch(look_here(sweep, nonce), asked, seen)


class _Cluster:
    """The checks that ask Slurm, and what they leave for the others: the limits and the pools that can start jobs."""

    def __init__(self, sweep: Sweep, used: Mapping[str, Pool]) -> None:
        self.sweep = sweep
        self.used = used
        self.on_slurm = False
        self.can_submit = False
        self.limits: ClusterLimits | None = None
        self.usable: dict[str, Pool] = {}

    def checks(self) -> Iterator[Check]:
        absent = [name for name in COMMANDS if shutil.which(name) is None]
        if len(absent) == len(COMMANDS) or not self.used:
            why = "its runs name no pools" if not self.used else "no Slurm command is on PATH"
            yield Check("slurm", Verdict.SKIPPED, f"{why}: the sweep executes on this machine, and Slurm is not asked")
            return
        self.on_slurm = True
        self.can_submit = not {"sbatch", "srun"} & {*absent}
        if absent:
            remedy = "log in to a login node, or load the cluster's Slurm module ('module load slurm')"
            yield Check("commands", Verdict.PROBLEM, f"{', '.join(absent)} not on PATH", remedy)
        else:
            yield Check("commands", Verdict.OK, f"{', '.join(COMMANDS)} are on PATH")
        began = time.monotonic()
        try:
            self.limits = read_limits(sorted({pool.clusters for pool in self.used.values() if pool.clusters}))
        except NoSuchCluster as error:
            where = self.sweep.cluster.file if self.sweep.cluster else self.sweep.file
            yield Check("clusters", Verdict.PROBLEM, str(error), f"edit 'clusters' of the pool in {where}")
        except SlurmError as error:
            remedy = "look at 'scontrol ping', and ask the administrators if it is DOWN"
            yield Check("slurmctld", Verdict.PROBLEM, f"Slurm does not tell its limits: {error}", remedy)
            yield Check("pools", Verdict.SKIPPED, "slurmctld does not answer")
        else:
            words = f"answers ({time.monotonic() - began:.1f} s); {self.limits.max_jobs:,} jobs"
            yield Check("slurmctld", Verdict.OK, f"{words}, {self.limits.max_array_size - 1:,} tasks an array at most")
        yield _accounting(self.sweep)
        if self.limits:
            for name, pool in self.used.items():
                yield from self._pool(name, pool, self.limits)

    def _pool(self, name: str, pool: Pool, limits: ClusterLimits) -> Iterator[Check]:
        cluster = self.sweep.cluster
        where = str(cluster.file if cluster else self.sweep.file)
        shares = sharing(self.sweep, cluster) if cluster else {}
        found = problems(pool, limits, **shares)
        for words in found:
            yield Check(f"pool {name}", Verdict.PROBLEM, words, f"edit pool '{name}' in {where}")
        if not found:
            self.usable[name] = pool
            partition = f"partition '{pool.partition}'" if pool.partition else "the default partition"
            time_limit = f"{pool.time_limit_min:,} min" if pool.time_limit_min else "the site's time limit"
            asked = [partition, pool.gres, pool.constraint, time_limit]
            for words in delays(pool, limits, **shares):
                yield Check(f"pool {name}", Verdict.WARNING, words, "its jobs wait until then; ask the administrators")
            doubt = unchecked(pool, limits)
            if doubt:
                yield Check(f"pool {name}", Verdict.WARNING, doubt, f"name a 'partition' in pool '{name}' in {where}")
            else:
                yield Check(f"pool {name}", Verdict.OK, f"the cluster has it: {', '.join(filter(None, asked))}")
        yield from _account(name, pool, limits.of(pool.clusters), where)
        runs = sum(one.pool == name for placed in self.sweep.runs for one in placed.everywhere)
        wanted = resources(pool, **shares)
        caps = list(limits.caps(wanted))
        for cap in caps:
            if cap.left < runs:
                words = f"{cap.words}; 'sweep submit --wait' sends the rest when there is room"
                yield Check(f"pool {name}", Verdict.OK, words)
        held_up = bool(delays(pool, limits, **shares)) or any(not cap.left for cap in caps)
        if self.can_submit:
            folder = SweepFolder(self.sweep.folder).submissions
            yield try_pool(name, wanted, folder, where, held_up=held_up)


def _bad_nodes(sweep: Sweep) -> Iterator[Check]:
    try:
        found = bad_nodes(SweepFolder(sweep.folder), look(sweep))
    except MachineError as error:
        yield Check("nodes", Verdict.WARNING, f"what became of earlier jobs cannot be told: {error}")
        return
    for node in found:
        remedy = f"'sweep retry {sweep.file} --forget-nodes' when it is repaired; until then jobs avoid it"
        yield Check(f"node {node.name}", Verdict.WARNING, node.words, remedy)


def _accounting(sweep: Sweep) -> Check:
    try:
        call(["sacct", "-n", "-X", "-P", "-S", "now-1minutes", "-o", "JobID"])
    except SlurmError as error:
        words = f"sacct does not answer ({error}): how a job ended is known only for the minutes slurmctld remembers it"
        return Check("accounting", Verdict.WARNING, words, f"leave 'sweep watch {sweep.file}' running while jobs run")
    return Check("accounting", Verdict.OK, "sacct answers")


def _account(name: str, pool: Pool, limits: ClusterLimits, where: str) -> Iterator[Check]:
    """Check the account and the qos a pool names against the user's."""
    if pool.account is None and pool.qos is None:
        return
    named = ", ".join(f"{key} '{value}'" for key, value in (("account", pool.account), ("qos", pool.qos)) if value)
    if not limits.accounts:
        why = "accounting does not answer" if limits.accounts is None else "accounting does not know you"
        yield Check(f"account {name}", Verdict.SKIPPED, f"{named} cannot be checked: {why}")
        return
    edit = f"edit pool '{name}' in {where}"
    wrong: list[tuple[str, str]] = []
    if pool.account is not None and pool.account not in limits.accounts:
        yours = ", ".join(sorted(limits.accounts))
        wrong.append(("associations", f"account '{pool.account}' is not one of yours: {yours}"))
    allowed = limits.accounts.get(pool.account or "", frozenset().union(*limits.accounts.values()))
    if pool.qos is not None and pool.qos not in allowed:
        yours = ", ".join(sorted(allowed)) or "none"
        wrong.append(("qos", f"qos '{pool.qos}' is not open to you; these are: {yours}"))
    for enforcement, words in wrong:
        if enforcement in limits.enforced:
            yield Check(f"account {name}", Verdict.PROBLEM, words, edit)
        else:
            yield Check(f"account {name}", Verdict.WARNING, f"{words} (this cluster takes the job all the same)", edit)
    if not wrong:
        yield Check(f"account {name}", Verdict.OK, f"accounting knows {named}")


def _data(sweep: Sweep) -> Iterator[Check]:
    for name in dict.fromkeys(placed.spec.run.dataset for placed in sweep.runs):
        try:
            dataset = open_dataset(sweep.data, name)
            dataset.arrays()
        except DataError as error:
            remedy = f"'sweep data prepare {name} --source ARCHIVE --data {sweep.data}'"
            yield Check("data", Verdict.PROBLEM, error.what, remedy)
            continue
        manifest = dataset.manifest
        kind = "drawn images" if manifest.synthetic else "images"
        size = f"{manifest.train_samples:,} + {manifest.val_samples:,} {kind}"
        yield Check("data", Verdict.OK, f"{DATASETS[name].title} is prepared in {sweep.data} ({size})")


def _disk(sweep: Sweep, pools: Mapping[str, Pool]) -> Iterator[Check]:
    """Compare the free space with what checkpoints need. A done run has none; an interrupted one keeps its two."""
    folder = SweepFolder(sweep.folder)
    sizes = sorted(
        (
            sweep.network(placed.spec.run).parameters * BYTES_A_PARAMETER
            for placed in sweep.runs
            if not folder.run(placed.id).result.exists()
        ),
        reverse=True,
    )
    try:
        free = shutil.disk_usage(_existing(sweep.folder)).free
    except OSError as error:
        yield Check("disk", Verdict.SKIPPED, f"{sweep.folder}: free space cannot be read: {error.strerror}")
        return
    parallel = min(len(sizes), _parallel(sweep, pools) or len(sizes))
    at_once = (CHECKPOINTS + 1) * sum(sizes[:parallel])
    in_total = CHECKPOINTS * sum(sizes) + sum(sizes[:parallel])
    words = (
        f"{_gigabytes(free)} free in {sweep.folder} (quotas aside); {len(sizes)} unfinished runs need "
        f"{_gigabytes(at_once)} for {parallel} at a time, {_gigabytes(in_total)} if all are under way "
        "(a checkpoint is 3 × parameters × 4 bytes; two are kept, one is being written)"
    )
    remedy = f"free some, or choose another folder with 'output:' in {sweep.file} or '--output DIR'"
    if free < at_once:
        yield Check("disk", Verdict.PROBLEM, words, remedy)
    elif free < in_total:
        yield Check("disk", Verdict.WARNING, words, remedy)
    else:
        yield Check("disk", Verdict.OK, words)


def _gpu_memory(sweep: Sweep) -> Iterator[Check]:
    """Compare what runs need of a GPU with what the pools say theirs have, or with the least that their kind has."""
    for need in needs(sweep, sweep.runs):
        name = f"GPU memory {need.pool}"
        if need.problem:
            yield Check(name, Verdict.PROBLEM, *need.problem)
        elif need.warning:
            yield Check(name, Verdict.WARNING, *need.warning)
        else:
            beside = f" with {len(need.gibs) - 1} beside it" if len(need.gibs) > 1 else ""
            yield Check(name, Verdict.OK, f"{need.run}{beside} needs about {sum(need.gibs):.1f} GiB of {need.has}")


def _parallel(sweep: Sweep, pools: Mapping[str, Pool]) -> int | None:
    """How many runs may execute at a time; None if nothing limits them."""
    if pools and sweep.cluster:
        section = sweep.cluster.section
        return section.max_parallel and section.max_parallel * section.runs_per_gpu * len(pools)
    workers = sweep.execution.workers
    return workers if isinstance(workers, int) else default_workers()


def look_at_torch(here: Findings | str, pools: Mapping[str, Pool], seen: Mapping[str, Findings]) -> Iterator[Check]:
    """Check that torch imports, and has kernels for the GPUs: those of the pools, or those of this machine."""
    broken = here if isinstance(here, str) else here.problems.get("torch")
    if broken is not None:
        remedy = f"reinstall it: '{sys.executable} -m pip install --force-reinstall torch==2.7.1'"
        yield Check("torch", Verdict.PROBLEM, f"cannot be imported by {sys.executable}: {broken}", remedy)
    elif not isinstance(here, str):
        yield Check("torch", Verdict.OK, f"torch {here.torch}, Python {here.python}, kernels for {listed(here.archs)}")
        if not pools:
            yield from (kernels("torch", here, gpu.capability, gpu.name) for gpu in dict.fromkeys(here.gpus))
    for name, pool in pools.items():
        there, device = seen.get(name) or here, pool.device
        if device.is_amd:
            words = f"{device.name} needs ROCm's torch, with which this program is untried"
            yield Check(f"torch {name}", Verdict.WARNING, words, "try one short run there before a sweep")
        if not device.is_gpu or isinstance(there, str) or not there.torch or (name in seen and there.gpus):
            continue
        if device.capability is None:
            words = f"whether it has kernels for {device.name} is not checked: its 'device' gives no 'capability'"
            yield Check(f"torch {name}", Verdict.SKIPPED, words)
        else:
            yield kernels(f"torch {name}", there, device.capability, device.name)


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path.absolute(), *path.absolute().parents) if candidate.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"

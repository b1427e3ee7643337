"""Whether a cluster takes a pool's jobs, and what keeps them waiting. Pure."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from slurm.limits import ClusterLimits, NodeGroup, PartitionLimits, parse_gres
from slurm.pools import Pool, several_gpus


class Share(NamedTuple):
    """How many runs share a job, or how many GPUs a run has; one of the two is 1."""

    workers: int = 1
    gpus: int = 1

    @property
    def times(self) -> int:
        return self.workers * self.gpus

    @property
    def key(self) -> str:
        """The key of the sweep file that says so."""
        return "gpus_per_run" if self.gpus > 1 else "runs_per_gpu"

    @property
    def words(self) -> str:
        return f"{self.gpus} GPUs a run" if self.gpus > 1 else f"{self.workers} runs a job"


def problems(pool: Pool, limits: ClusterLimits, *, workers: int = 1, gpus: int = 1) -> list[str]:
    """Say what of a pool the cluster does not have, each with what to write instead; nothing: jobs in it can start,
    once its nodes are in service (`delays` says).

    workers: runs that share a job, which asks for as many times the pool's CPUs and memory. gpus: what a run has, also
    times its CPUs and memory. Of several partitions ("gpu,long") all must exist and one must fit. Where it is not known
    which partition the jobs get (`unchecked` says), nothing is found wrong.
    """
    share = Share(workers, gpus)
    limits = limits.of(pool.clusters)
    pool = pool.model_copy(update={"gres": several_gpus(pool.gres, gpus)})
    names = limits.names(pool.partition)
    absent = [
        f"partition '{name}' does not exist{_nearest(name, limits.partitions)}"
        for name in names
        if name not in limits.partitions
    ]
    if absent:
        return absent
    if not names and pool.partition is not None:
        return [f"partition '{pool.partition}' names nothing{_nearest('', limits.partitions)}"]
    found = [list(_misfits(pool, limits.partitions[name], share)) for name in names]
    return [] if [] in found else min(found, key=len, default=[])


def unchecked(pool: Pool, limits: ClusterLimits) -> str | None:
    """Say why only sbatch can tell whether the cluster takes a pool's jobs; None where `problems` can."""
    if pool.partition is not None or limits.of(pool.clusters).default_partition is not None:
        return None
    return "it names no partition, and the cluster has no default one: whether its jobs fit is not known"


def delays(pool: Pool, limits: ClusterLimits, *, workers: int = 1, gpus: int = 1) -> list[str]:
    """Say what keeps a pool that fits from starting jobs now: a partition or nodes out of service."""
    share = Share(workers, gpus)
    limits = limits.of(pool.clusters)
    pool = pool.model_copy(update={"gres": several_gpus(pool.gres, gpus)})
    found: list[list[str]] = []
    for name in limits.names(pool.partition):
        partition = limits.partitions.get(name)
        fitting = [group for group in partition.groups if _fits(pool, group, share)] if partition else []
        if partition is None or not fitting:
            continue
        if not partition.up:
            found.append([f"partition '{name}' takes no jobs now; its jobs wait until it does"])
        elif not any(group.up for group in fitting):
            count = sum(group.nodes for group in fitting)
            words = f"the nodes of partition '{name}' that fit are all down or drained ({count})"
            found.append([f"{words}; 'sinfo -R -p {name}' says why"])
        else:
            return []
    return min(found, key=len, default=[])


def _misfits(pool: Pool, partition: PartitionLimits, share: Share) -> Iterator[str]:
    where = f"partition '{partition.name}'"
    if not partition.groups:
        yield f"{where} has no nodes; use another 'partition'"
        return
    asked, allowed = pool.time_limit_min, partition.time_limit_min
    if asked is not None and allowed is not None and asked > allowed:
        words = f"time_limit_min is {asked}, {where} allows {allowed}: its jobs would wait for ever"
        yield f"{words}; set 'time_limit_min: {allowed}'"
    single = [
        *_wrong_gres(pool.gres, partition, share),
        *_wrong_constraint(pool.constraint, partition),
        *_wrong_memory(pool, partition, share),
        *_wrong_cpus(pool, partition, share),
    ]
    yield from single
    fitting = [group for group in partition.groups if _fits(pool, group, share)]
    if single:
        return
    if not fitting:
        wanted = {
            "gres": pool.gres,
            "constraint": pool.constraint,
            "cpus": pool.cpus * share.times,
            "memory_gb": None if pool.memory_gb is None else pool.memory_gb * share.times,
        }
        shown = ", ".join(f"{key} {value}" for key, value in wanted.items() if value is not None)
        look = "'sinfo -N -o \"%N %c %m %G %f\"' shows what they have"
        yield f"no node of {where} has all of it together ({shown}); {look}"


def _wrong_gres(gres: str | None, partition: PartitionLimits, share: Share) -> Iterator[str]:
    for name, count in parse_gres(gres or "").items():
        most = max((_count(name, group) for group in partition.groups), default=0)
        where = f"a node of partition '{partition.name}'"
        if most == 0:
            yield f"gres '{name}' is on no node of partition '{partition.name}'{_nearest(name, partition.gres)}"
        elif count > most:
            remedy = "lower 'gpus_per_run'" if share.gpus > 1 else f"set 'gres: {name}:{most}'"
            yield f"gres asks for {count} {name}, {where} has {most} at most; {remedy}"


def _wrong_constraint(constraint: str | None, partition: PartitionLimits) -> Iterator[str]:
    for word in words_of(constraint or ""):
        if word not in partition.features:
            nearest = _nearest(word, partition.features)
            yield f"constraint: no node of partition '{partition.name}' has the feature '{word}'{nearest}"


def _wrong_memory(pool: Pool, partition: PartitionLimits, share: Share) -> Iterator[str]:
    most = partition.node_memory_gb
    if partition.max_memory_gb is not None:
        most = min(most, partition.max_memory_gb)
    if pool.memory_gb is not None and pool.memory_gb * share.times > most:
        yield _too_much("memory_gb", pool.memory_gb, most, share, partition, "a job may have %s GB of a node")


def _wrong_cpus(pool: Pool, partition: PartitionLimits, share: Share) -> Iterator[str]:
    most = partition.node_cpus
    if partition.max_cpus is not None:
        most = min(most, partition.max_cpus)
    if pool.cpus * share.times > most:
        yield _too_much("cpus", pool.cpus, most, share, partition, "a job may have %s CPUs of a node")


def _too_much(key: str, value: float, most: float, share: Share, partition: PartitionLimits, allowed: str) -> str:
    """Say that a job asks for more than there is, and the largest value that fits, to one decimal or whole."""
    asked = f"{key} is {value:g}" + (f", times {share.words}" if share.times > 1 else "")
    part = most / share.times
    fits = int(part) if key == "cpus" or part >= 2 else int(part * 10) / 10
    if fits <= 0:
        remedy = f"lower '{share.key}'"
    else:
        remedy = f"set '{key}: {fits:g}'" + (f" or lower '{share.key}'" if share.times > 1 else "")
    return f"{asked}; in partition '{partition.name}' {allowed % f'{most:.4g}'}; {remedy}"


def _fits(pool: Pool, group: NodeGroup, share: Share) -> bool:
    return (
        pool.cpus * share.times <= group.cpus
        and (pool.memory_gb or 0.0) * share.times <= group.memory_gb
        and all(count <= _count(name, group) for name, count in parse_gres(pool.gres or "").items())
        and _satisfies(pool.constraint or "", group.features)
    )


def _satisfies(constraint: str, features: frozenset[str]) -> bool:
    """Tell whether one node may satisfy a constraint; an expression that mixes & and | is taken word by word."""
    words = words_of(constraint)
    if "|" not in constraint:
        return all(word in features for word in words)
    return any(word in features for word in words)


def words_of(constraint: str) -> list[str]:
    """The features a constraint names: of "v100*2&[a|b]" v100, a and b."""
    return re.findall(r"[^&|,()\[\]{}\s]+", re.sub(r"\*\d+", "", constraint))


def _count(name: str, group: NodeGroup) -> int:
    """Count what a node has of a gres; "gpu" is met by GPUs of any type."""
    return sum(count for have, count in group.gres.items() if have == name or have.startswith(f"{name}:"))


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close: Sequence[str] = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of: {', '.join(known)}" if known else "; there are none: leave it out"

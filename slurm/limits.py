"""What the cluster allows, read from four of Slurm's commands, and what in a pool does not fit it.

Slurm takes some jobs that can never start (a time limit above the partition's, more memory than MaxMemPerNode): they
wait for ever. So the limits are asked before anything is submitted.
"""

import difflib
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from slurm.commands import SlurmError, call
from slurm.pools import Pool, several_gpus

QUERY_S = 20.0
# States of a node that takes no jobs, whatever follows ("down*", "drained"). "draining" nodes end what they have.
_OUT_OF_SERVICE = ("down", "drain", "fail", "maint", "unknown", "inval", "error", "future", "n/a")


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


class NodeGroup(NamedTuple):
    """Nodes of a partition that are alike. gres: count by type, {"gpu:v100": 4}; up: how many of them take jobs."""

    nodes: int
    up: int
    cpus: int
    memory_gb: float
    gres: Mapping[str, int]
    features: frozenset[str]


class PartitionLimits(NamedTuple):
    """A partition. None stands for no limit; max_memory_gb and max_cpus are what one job may have of a node."""

    name: str
    up: bool
    time_limit_min: int | None
    max_memory_gb: float | None
    max_cpus: int | None
    groups: tuple[NodeGroup, ...]

    @property
    def nodes(self) -> int:
        return sum(group.nodes for group in self.groups)

    @property
    def node_memory_gb(self) -> float:
        """Memory of the largest node."""
        return max((group.memory_gb for group in self.groups), default=0.0)

    @property
    def node_cpus(self) -> int:
        """CPUs of the largest node."""
        return max((group.cpus for group in self.groups), default=0)

    @property
    def gres(self) -> dict[str, int]:
        """Largest count on one node, by type."""
        most: dict[str, int] = {}
        for group in self.groups:
            for name, count in group.gres.items():
                most[name] = max(count, most.get(name, 0))
        return most

    @property
    def features(self) -> frozenset[str]:
        return frozenset().union(*(group.features for group in self.groups))


class ClusterLimits(NamedTuple):
    """max_array_size: one more than the highest task index. max_submit: jobs the user may have, None if nobody says.

    enforced: what slurmctld refuses by accounting's word ("associations", "limits", "qos"). accounts: the user's
    accounts and the qos of each; None when accounting does not answer.
    """

    max_array_size: int
    max_jobs: int
    message_timeout_s: float
    max_submit: int | None
    partitions: dict[str, PartitionLimits]
    enforced: frozenset[str] = frozenset()
    accounts: Mapping[str, frozenset[str]] | None = None


class Association(NamedTuple):
    """What accounting lets the user do under an account. max_submit: jobs at a time, None for no limit."""

    account: str
    qos: frozenset[str]
    max_submit: int | None


def read_limits() -> ClusterLimits:
    """Ask Slurm for its limits. Raises SlurmError if slurmctld does not answer; accounting may be silent."""
    config = parse_config(call(["scontrol", "show", "config"], timeout_s=QUERY_S))
    # -a: also partitions that are hidden; -e: nodes grouped only when all that is printed is equal, no "64000+".
    rows = call(["sinfo", "-a", "-h", "-e", "-o", "%R|%a|%l|%D|%c|%m|%G|%f|%T"], timeout_s=QUERY_S)
    everywhere_mb = _number(config, "MaxMemPerNode", 0) or None
    caps = parse_caps(call(["scontrol", "-a", "-o", "show", "partition"], timeout_s=QUERY_S), everywhere_mb)
    associations = _read_associations(config.get("ClusterName"))
    return ClusterLimits(
        max_array_size=_number(config, "MaxArraySize", 1001),
        max_jobs=_number(config, "MaxJobCount", 10000),
        message_timeout_s=float(_number(config, "MessageTimeout", 10)),
        max_submit=min((found.max_submit for found in associations or () if found.max_submit), default=None),
        partitions=parse_partitions(rows, caps),
        enforced=frozenset(config.get("AccountingStorageEnforce", "none").split(",")) - {"none"},
        accounts=None if associations is None else _by_account(associations),
    )


def parse_config(text: str) -> dict[str, str]:
    """Read `scontrol show config`: "MaxArraySize            = 20001"."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_partitions(rows: str, caps: Mapping[str, tuple[int | None, int | None]]) -> dict[str, PartitionLimits]:
    """Read sinfo's rows "partition|availability|time limit|nodes|cpus|memory|gres|features|state".

    caps: what one job may have of a node, see `parse_caps`. Raises SlurmError for rows that are something else.
    """
    found: dict[str, PartitionLimits] = {}
    for row in filter(None, rows.splitlines()):
        fields = row.split("|")
        try:
            name, available, time_limit, nodes, cpus, memory_mb, gres, features, state = fields
            group = NodeGroup(
                nodes=int(nodes),
                up=int(nodes) if takes_jobs(state) else 0,
                cpus=int(cpus.rstrip("+")),
                memory_gb=int(memory_mb.rstrip("+")) / 1024,
                gres=parse_gres(gres),
                features=frozenset(re.findall(r"[^,]+", features)) - {"(null)"},
            )
            minutes = parse_minutes(time_limit)
        except ValueError as error:
            raise SlurmError(f"sinfo printed what is not understood here: '{row}'") from error
        cap_mb, cap_cpus = caps.get(name, (None, None))
        before = found.get(name)
        found[name] = PartitionLimits(
            name=name,
            up=available == "up",
            time_limit_min=minutes,
            max_memory_gb=None if cap_mb is None else cap_mb / 1024,
            max_cpus=cap_cpus,
            groups=(*(before.groups if before else ()), *([group] if group.nodes else [])),
        )
    return found


def parse_caps(text: str, everywhere_mb: int | None = None) -> dict[str, tuple[int | None, int | None]]:
    """Read `scontrol -o show partition`: by partition (MaxMemPerNode in MB, MaxCPUsPerNode), None for no limit.

    everywhere_mb: the cluster's MaxMemPerNode, which holds where a partition has none of its own.
    """
    caps = {}
    for line in text.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in words:
            memory, cpus = words.get("MaxMemPerNode", ""), words.get("MaxCPUsPerNode", "")
            caps[words["PartitionName"]] = (
                int(memory) if memory.isdigit() and int(memory) else everywhere_mb,
                int(cpus) if cpus.isdigit() else None,
            )
    return caps


def parse_gres(text: str) -> dict[str, int]:
    """Read a node's gres, "gpu:v100:2(S:0-1),gpu:p100:1", or a job's, "gpu:v100", into counts by type."""
    counts: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        parts = [part for part in item.strip().removeprefix("gres:").removeprefix("gres/").split(":") if part]
        if not parts:
            continue
        count = 1
        if len(parts) > 1 and (found := re.fullmatch(r"(\d+)([KMGTP]?)", parts[-1], re.IGNORECASE)):
            count = int(found[1]) * 1024 ** " KMGTP".index(found[2].upper() or " ")
            parts.pop()
        name = ":".join(part for part in parts if part != "no_consume")
        counts[name] = counts.get(name, 0) + count
    return counts


def parse_minutes(text: str) -> int | None:
    """Read Slurm's time limits, days-hours:minutes:seconds, into whole minutes; None: no limit. Raises ValueError."""
    if text.lower() in ("infinite", "unlimited", "n/a", "none", "not_set"):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds // 60


def parse_associations(text: str) -> list[Association]:
    """Read `sacctmgr -nP show assoc format=account,qos,maxsubmit`, a line an association: "lab|normal,short|200".

    Which one a job falls under depends on its account and partition. Raises SlurmError for lines that are not such.
    """
    found = []
    for line in filter(None, text.splitlines()):
        try:
            account, qos, most = line.split("|")
        except ValueError as error:
            raise SlurmError(f"sacctmgr printed what is not understood here: '{line}'") from error
        found.append(
            Association(account, frozenset(filter(None, qos.split(","))), int(most) if most.isdigit() else None)
        )
    return found


def takes_jobs(state: str) -> bool:
    """Tell whether a node in sinfo's state may be given jobs, now or when those it has have ended."""
    return not state.lower().startswith(_OUT_OF_SERVICE)


def problems(pool: Pool, limits: ClusterLimits, *, workers: int = 1, gpus: int = 1) -> list[str]:
    """Say what of a pool the cluster does not have, each with what to write instead; nothing: jobs in it can start,
    once its nodes are in service (`delays` says).

    workers: runs that share a job, which asks for as many times the pool's CPUs and memory. gpus: what a run has, also
    times its CPUs and memory. Of several partitions ("gpu,long") all must exist and one must fit.
    """
    share = Share(workers, gpus)
    pool = pool.model_copy(update={"gres": several_gpus(pool.gres, gpus)})
    names = [name for name in pool.partition.split(",") if name]
    absent = [
        f"partition '{name}' does not exist{_nearest(name, limits.partitions)}"
        for name in names
        if name not in limits.partitions
    ]
    if absent or not names:
        return absent or [f"partition '{pool.partition}' names nothing{_nearest('', limits.partitions)}"]
    found = [list(_misfits(pool, limits.partitions[name], share)) for name in names]
    return [] if [] in found else min(found, key=len)


def delays(pool: Pool, limits: ClusterLimits, *, workers: int = 1, gpus: int = 1) -> list[str]:
    """Say what keeps a pool that fits from starting jobs now: a partition or nodes out of service."""
    share = Share(workers, gpus)
    pool = pool.model_copy(update={"gres": several_gpus(pool.gres, gpus)})
    found: list[list[str]] = []
    for name in filter(None, pool.partition.split(",")):
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
    if partition.time_limit_min is not None and pool.time_limit_min > partition.time_limit_min:
        yield (
            f"time_limit_min is {pool.time_limit_min}, {where} allows {partition.time_limit_min}: its jobs would wait "
            f"for ever; set 'time_limit_min: {partition.time_limit_min}'"
        )
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
            "memory_gb": pool.memory_gb * share.times,
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
    if pool.memory_gb * share.times > most:
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
        and pool.memory_gb * share.times <= group.memory_gb
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
    """Give the features a constraint names: of "v100*2&[a|b]" v100, a and b."""
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


def _number(config: Mapping[str, str], key: str, default: int) -> int:
    """Read a number with its unit, "5 sec"; the default is Slurm's own."""
    found = re.match(r"\d+", config.get(key, ""))
    return int(found[0]) if found else default


def _by_account(associations: Iterable[Association]) -> dict[str, frozenset[str]]:
    accounts: dict[str, frozenset[str]] = {}
    for found in associations:
        accounts[found.account] = accounts.get(found.account, frozenset()) | found.qos
    return accounts


def _read_associations(cluster: str | None) -> list[Association] | None:
    """Ask accounting what the user may do here; None when it does not answer, or is off."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
        where = [f"user={user}", *([f"cluster={cluster}"] if cluster else [])]
        command = ["sacctmgr", "-nP", "show", "assoc", *where, "format=account,qos,maxsubmit"]
        return parse_associations(call(command, timeout_s=QUERY_S))
    except (KeyError, SlurmError):
        return None

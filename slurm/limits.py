"""What the cluster allows, read from four of Slurm's commands, and what in a pool does not fit it.

Slurm takes some jobs that can never start (a time limit above the partition's, more memory than MaxMemPerNode): they
wait for ever. So the limits are asked before anything is submitted.
"""

import os
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from slurm.commands import SlurmError, call, on
from slurm.jobs import Resources
from slurm.room import Cap, Room, read_room

# States of a node that takes no jobs, whatever follows ("down*", "drained"). "draining" nodes end what they have.
_OUT_OF_SERVICE = ("down", "drain", "fail", "maint", "unknown", "inval", "error", "future", "n/a")


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
    qos: str | None = None

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
    """max_array_size: one more than the highest task index. room: how many more jobs Slurm takes of the user.

    enforced: what slurmctld refuses by accounting's word ("associations", "limits", "qos"). accounts: the user's
    accounts and the qos of each; None when accounting does not answer. default_partition: of jobs that name none; None
    where the cluster has no such, and only the site's own rules can tell. others: what other clusters allow, by name.
    """

    max_array_size: int
    max_jobs: int
    message_timeout_s: float
    partitions: dict[str, PartitionLimits]
    enforced: frozenset[str] = frozenset()
    accounts: Mapping[str, frozenset[str]] | None = None
    room: Room = Room()
    default_partition: str | None = None
    others: Mapping[str, "ClusterLimits"] = {}

    def of(self, clusters: str | None) -> "ClusterLimits":
        """What the cluster of that name allows, None for this one."""
        return self if clusters is None else self.others[clusters]

    def names(self, partition: str | None) -> list[str]:
        """The partitions that "gpu,long" names; for None the default one, if there is one."""
        return [name for name in (partition or self.default_partition or "").split(",") if name]

    def caps(self, asked: Resources) -> list[Cap]:
        """What limits how many jobs the user may have that ask for this; the cluster's own limit is one."""
        there = self.of(asked.clusters)
        names = there.names(asked.partition)
        own = {there.partitions[name].qos for name in names if name in there.partitions}
        of_names = there.room.caps(account=asked.account, qos=asked.qos, partitions=names, partition_qos=own)
        found = [Cap("the cluster", there.max_jobs, 0), *of_names]
        if asked.clusters is None:
            return found
        return [cap._replace(whose=f"on {asked.clusters}, {cap.whose}") for cap in found]


class NodeShare(NamedTuple):
    """What one job in a partition may have of a node, None for no limit, and the partition's own QOS."""

    memory_mb: int | None = None
    cpus: int | None = None
    qos: str | None = None


class Association(NamedTuple):
    """What accounting lets the user do under an account."""

    account: str
    qos: frozenset[str]


def read_limits(others: Iterable[str] = ()) -> ClusterLimits:
    """Ask Slurm for its limits, and for those of other clusters by their names.

    Raises SlurmError if a slurmctld does not answer; accounting may be silent.
    """
    return _read_limits(None)._replace(others={name: _read_limits(name) for name in others})


def _read_limits(clusters: str | None) -> ClusterLimits:
    config = parse_config(call(["scontrol", *on(clusters), "show", "config"]))
    # -a: also partitions that are hidden; -e: nodes grouped only when all that is printed is equal, no "64000+".
    rows = call(["sinfo", *on(clusters), "-a", "-h", "-e", "-o", "%R|%a|%l|%D|%c|%m|%G|%f|%T"])
    everywhere_mb = _number(config, "MaxMemPerNode", 0) or None
    shown = call(["scontrol", *on(clusters), "-a", "-o", "show", "partition"])
    associations = _read_associations(config.get("ClusterName"))
    enforced = frozenset(config.get("AccountingStorageEnforce", "none").split(",")) - {"none"}
    return ClusterLimits(
        max_array_size=_number(config, "MaxArraySize", 1001),
        max_jobs=_number(config, "MaxJobCount", 10000),
        message_timeout_s=float(_number(config, "MessageTimeout", 10)),
        partitions=parse_partitions(rows, parse_caps(shown, everywhere_mb)),
        enforced=enforced,
        accounts=None if associations is None else _by_account(associations),
        room=read_room(clusters, config.get("ClusterName")) if "limits" in enforced else Room(),
        default_partition=parse_default(shown),
    )


def read_nodes(partitions: Sequence[str], clusters: str | None) -> frozenset[str]:
    """The names of the nodes in some partitions, of all where none is named. Raises SlurmError."""
    among = ["-p", ",".join(partitions)] if partitions else ["-a"]
    return frozenset(call(["sinfo", *on(clusters), "-h", "-N", *among, "-o", "%N"]).split())


def parse_config(text: str) -> dict[str, str]:
    """Read `scontrol show config`: "MaxArraySize            = 20001"."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_partitions(rows: str, caps: Mapping[str, NodeShare]) -> dict[str, PartitionLimits]:
    """Read sinfo's rows "partition|availability|time limit|nodes|cpus|memory|gres|features|state".

    caps: by partition, see `parse_caps`. Raises SlurmError for rows that are something else.
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
        cap = caps.get(name, NodeShare())
        before = found.get(name)
        found[name] = PartitionLimits(
            name=name,
            up=available == "up",
            time_limit_min=minutes,
            max_memory_gb=None if cap.memory_mb is None else cap.memory_mb / 1024,
            max_cpus=cap.cpus,
            qos=cap.qos,
            groups=(*(before.groups if before else ()), *([group] if group.nodes else [])),
        )
    return found


def parse_caps(text: str, everywhere_mb: int | None = None) -> dict[str, NodeShare]:
    """Read `scontrol -o show partition`: by partition what one job may have, MaxMemPerNode and MaxCPUsPerNode.

    everywhere_mb: the cluster's MaxMemPerNode, which holds where a partition has none of its own.
    """
    caps = {}
    for line in text.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in words:
            memory, cpus, qos = (words.get(key, "") for key in ("MaxMemPerNode", "MaxCPUsPerNode", "QoS"))
            caps[words["PartitionName"]] = NodeShare(
                int(memory) if memory.isdigit() and int(memory) else everywhere_mb,
                int(cpus) if cpus.isdigit() else None,
                qos if qos not in ("", "N/A") else None,
            )
    return caps


def parse_default(text: str) -> str | None:
    """Read in `scontrol -o show partition` which partition a job gets that names none."""
    found = re.search(r"^PartitionName=(\S+)\s(?:.*\s)?Default=YES\b", text, re.MULTILINE)
    return found[1] if found else None


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
    """Read `sacctmgr -nP show assoc format=account,qos`, a line an association: "lab|normal,short".

    Which one a job falls under depends on its account and partition. Raises SlurmError for lines that are not such.
    """
    found = []
    for line in filter(None, text.splitlines()):
        try:
            account, qos = line.split("|")
        except ValueError as error:
            raise SlurmError(f"sacctmgr printed what is not understood here: '{line}'") from error
        found.append(Association(account, frozenset(filter(None, qos.split(",")))))
    return found


def takes_jobs(state: str) -> bool:
    """Tell whether a node in sinfo's state may be given jobs, now or when those it has have ended."""
    return not state.lower().startswith(_OUT_OF_SERVICE)


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
        command = ["sacctmgr", "-nP", "show", "assoc", *where, "format=account,qos"]
        return parse_associations(call(command))
    except (KeyError, SlurmError):
        return None

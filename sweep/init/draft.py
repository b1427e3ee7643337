"""Which pools a cluster has, from its limits and from what its nodes show, and the two files as text. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from slurm.devices import CPU, KNOWN, Device, device_called
from slurm.limits import ClusterLimits, NodeGroup, PartitionLimits

LONGEST_MIN = 24 * 60  # that a job is given where its partition allows more: what is left goes on in the next
CPUS = 8  # of one run, where its node has more for each GPU
MEMORY_SHARE = 0.9  # of what a node's memory leaves to each GPU, or to each of its CPUs
LEAST_GB = 2.0


class Draft(NamedTuple):
    """A pool to be written. device: a name of the table, or what is known of another; words: what was found there."""

    name: str
    partition: str
    gres: str | None
    cpus: int
    memory_gb: float
    time_limit_min: int
    gpus: int
    device: str | dict[str, object]
    default: bool = False
    words: tuple[str, ...] = ()


class Shown(NamedTuple):
    """What nvidia-smi printed on a node of a pool. gpus: name and GiB of each; none where it is not there, too.

    problem: why nothing is known, where the probe itself did not come so far.
    """

    gpus: tuple[tuple[str, float], ...] = ()
    problem: str | None = None


def drafts(limits: ClusterLimits) -> list[Draft]:
    """One pool for each kind of GPU in each partition that takes jobs, and one for each partition without GPUs."""
    found = []
    for partition in limits.partitions.values():
        if not partition.up or not partition.groups:
            continue
        kinds = sorted({name for group in partition.groups for name in group.gres if re.match(r"gpu\b", name)})
        every: list[str | None] = [*kinds]
        for kind in every or [None]:
            groups = [group for group in partition.groups if kind is None or kind in group.gres]
            found.append(_draft(partition, kind, groups, several=len(kinds) > 1, limits=limits))
    return found


def seen(draft: Draft, shown: Shown | None) -> Draft:
    """A pool with what was seen on one of its nodes; None where there was nothing to look for."""
    if shown is None:
        return draft
    if shown.problem is not None:
        return draft._replace(words=(*draft.words, f"not looked at: {shown.problem}"))
    if not shown.gpus and isinstance(draft.device, str) and KNOWN[draft.device].is_amd:
        return draft  # whose GPUs nvidia-smi does not show
    if not shown.gpus:
        words = "nvidia-smi shows no GPU on its nodes: its runs compute on the CPU"
        return draft._replace(device=CPU.name, words=(*draft.words, words))
    name, gib = shown.gpus[0]
    known = device_called(name)
    words = f"nvidia-smi: {name}, {gib:.0f} GiB"
    return draft._replace(device=known.name if known else _described(name, gib), words=(*draft.words, words))


def best(found: Sequence[Draft]) -> Draft:
    """The pool that a first sweep goes to: real GPUs first, then the default partition, then the most GPUs."""
    return max(found, key=lambda draft: (draft.device != CPU.name, draft.default, draft.gpus))


def cluster_text(name: str, found: Sequence[Draft], accounts: Mapping[str, Iterable[str]]) -> str:
    """The cluster file."""
    return "\n".join([*_cluster_lines(name, found, accounts), ""])


def sweep_text(pool: Draft | None, data: str, *, drawn: bool) -> str:
    """The first sweep file: four short runs. pool: where they go, None for this machine. drawn: the images are."""
    to_cluster = (
        ["", "cluster:", "  file: ./cluster.yaml", "  assign:", f"    - pool: {_scalar(pool.name)}"] if pool else []
    )
    images = "drawn images, for a first try; 'sweep data prepare cifar10 --source download' fetches the real ones"
    return "\n".join(
        [
            "# A first sweep: 'sweep plan sweep.yaml' shows it, 'sweep submit sweep.yaml' runs it.",
            "name: first",
            "",
            "grid:  # every combination is a run",
            "  architecture: [resnet18]",
            "  dataset: [cifar10]",
            "  ratio: [0.5, 1.0]  # of the training images",
            "  seed: [42, 43]",
            "",
            "training:",
            "  epochs: 3",
            "  batch_size: 8",
            "  lr_milestones: [2]",
            *to_cluster,
            "",
            "output: runs",
            f"data: {_scalar(data)}" + (f"  # {images}" if drawn else ""),
            "",
        ]
    )


def _draft(
    partition: PartitionLimits, kind: str | None, groups: Sequence[NodeGroup], *, several: bool, limits: ClusterLimits
) -> Draft:
    each = [(group, group.gres[kind] if kind else group.cpus) for group in groups]
    memory = min(min(group.memory_gb, partition.max_memory_gb or group.memory_gb) / share for group, share in each)
    most_cpus = min(group.cpus // group.gres[kind] if kind else group.cpus for group in groups)
    cpus = max(1, min(CPUS, most_cpus, partition.max_cpus or most_cpus))
    gib = MEMORY_SHARE * memory * (1 if kind else cpus)
    nodes = sum(group.nodes for group in groups)
    gpus = sum(group.gres[kind] * group.nodes for group in groups) if kind else 0
    device: str | dict[str, object] = CPU.name
    words = [f"{nodes} nodes of {groups[0].cpus} CPUs, {groups[0].memory_gb:.0f} GB"]
    if kind:
        words[0] += f", {gpus} GPUs"
        features = sorted({feature for group in groups for feature in group.features})
        named = device_called(" ".join([kind, *features]))
        device = named.name if named else _described(kind.rpartition(":")[2], 0.0)
        if not named:
            words.append(f"Slurm calls its GPU '{kind}', which sweep does not know: correct memory_gb and tflops")
    limit = partition.time_limit_min
    suffix = f"-{kind.rpartition(':')[2]}" if kind and several else ""
    return Draft(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", partition.name + suffix),
        partition=partition.name,
        gres=f"{kind}:1" if kind else None,
        cpus=cpus,
        memory_gb=max(LEAST_GB, float(int(gib))),
        time_limit_min=LONGEST_MIN if limit is None else min(limit, LONGEST_MIN),
        gpus=gpus,
        device=device,
        default=partition.name == limits.default_partition,
        words=tuple(words),
    )


def _described(name: str, gib: float) -> dict[str, object]:
    """A device that no table knows; its speed is a guess that its first runs put right."""
    plain = re.sub(r"[^\w .+-]", " ", name).strip() or "gpu"
    return Device(name=plain, memory_gb=float(round(gib)) or 16.0, tflops=10.0).model_dump(exclude_none=True)


def _cluster_lines(name: str, found: Sequence[Draft], accounts: Mapping[str, Iterable[str]]) -> Iterator[str]:
    yield "# Written by 'sweep init' from what Slurm says; 'sweep doctor' checks it. docs/sweep-file.md has all"
    yield "# that a pool may say."
    if accounts:
        names = ", ".join(sorted(accounts))
        yield f"# Your accounts: {names}. Jobs go under your default one unless a pool says 'account: NAME'."
    yield f"name: {_scalar(name)}"
    yield "pools:"
    for draft in found:
        yield f"  {_scalar(draft.name)}:" + "".join(f"\n    # {words}" for words in draft.words)
        fields: dict[str, object] = {
            "device": draft.device,
            "partition": draft.partition,
            "gres": draft.gres,
            "cpus": draft.cpus,
            "memory_gb": draft.memory_gb,
            "time_limit_min": draft.time_limit_min,
        }
        for key, value in fields.items():
            if value is not None:
                yield f"    {key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()

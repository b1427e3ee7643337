"""A cluster file and a first sweep file, from what Slurm says of a cluster."""

from pathlib import Path

import pytest
from conftest import Command

from slurm.devices import KNOWN
from slurm.limits import ClusterLimits, NodeGroup, PartitionLimits
from slurm.pools import ClusterFile
from sweep.config.explain import validate
from sweep.config.yaml_file import read_yaml
from sweep.init.draft import Draft, Shown, best, cluster_text, drafts, seen


def group(gres: dict[str, int], *features: str, cpus: int = 64, memory_gb: float = 512.0, nodes: int = 2) -> NodeGroup:
    return NodeGroup(nodes, nodes, cpus, memory_gb, gres, frozenset(features))


def partition(name: str, *groups: NodeGroup, up: bool = True, limit: int | None = None) -> PartitionLimits:
    return PartitionLimits(name, up, limit, None, None, groups)


PARTITIONS = [
    partition("gpu", group({"gpu:a100": 4}, "a100-80gb"), group({"gpu:v100": 8}), limit=4320),
    partition("odd name!", group({"gpu": 2}, "l40s")),
    partition("new", group({"gpu:gh200": 1}, cpus=72, memory_gb=480)),
    partition("batch", group({}, cpus=16, memory_gb=64), limit=60),
    partition("closed", group({"gpu:a100": 4}), up=False),
]
LIMITS = ClusterLimits(1001, 10_000, 10.0, {one.name: one for one in PARTITIONS}, default_partition="batch")


def read(tmp_path: Path, found: list[Draft]) -> ClusterFile:
    """Write the pools and read them back as a sweep does."""
    path = tmp_path / "cluster.yaml"
    path.write_text(cluster_text("here", found, {"lab": [], "root": []}))
    read: ClusterFile = validate(read_yaml(path), ClusterFile)
    return read


def test_every_kind_of_gpu_that_takes_jobs_is_a_pool_that_reads_back(tmp_path: Path) -> None:
    """With its share of a node's CPUs and memory, its partition's limit, and a word on what is not known."""
    file = read(tmp_path, drafts(LIMITS))
    assert list(file.pools) == ["gpu-a100", "gpu-v100", "odd-name-", "new", "batch"]
    a100 = file.pools["gpu-a100"]
    assert (a100.device, a100.gres, a100.cpus, a100.memory_gb) == (KNOWN["a100"], "gpu:a100:1", 8, 115.0)
    assert a100.time_limit_min == 24 * 60, "a day, where more is allowed"
    odd = file.pools["odd-name-"]
    assert (odd.partition, odd.device, odd.gres) == ("odd name!", KNOWN["l40s"], "gpu:1")
    assert file.pools["new"].device.is_own
    text = (tmp_path / "cluster.yaml").read_text()
    assert "'gpu:gh200', which sweep does not know" in text
    assert "Your accounts: lab, root." in text
    batch = file.pools["batch"]
    assert (batch.device, batch.gres, batch.time_limit_min) == (KNOWN["cpu"], None, 60)


@pytest.mark.parametrize(
    ("shown", "device", "words"),
    [
        (Shown((("NVIDIA H100 80GB HBM3", 79.6),)), "h100", "nvidia-smi: NVIDIA H100 80GB HBM3, 80 GiB"),
        (Shown((("NVIDIA GH200 480GB", 95.0),)), "NVIDIA GH200 480GB", "nvidia-smi: NVIDIA GH200 480GB, 95 GiB"),
        (Shown(), "cpu", "shows no GPU"),
        (Shown(problem="no node was free"), "a100", "not looked at: no node was free"),
    ],
    ids=["another card than Slurm's name", "unknown card", "no card", "no free node"],
)
def test_what_a_job_sees_there_counts_more_than_a_name(tmp_path: Path, shown: Shown, device: str, words: str) -> None:
    a100 = drafts(LIMITS)[0]
    file = read(tmp_path, [seen(a100, shown)])
    assert file.pools["gpu-a100"].device.name == device
    assert words in (tmp_path / "cluster.yaml").read_text()


def test_a_first_sweep_goes_to_gpus_or_to_the_default_partition() -> None:
    found = drafts(LIMITS)
    assert best(found).name == "gpu-v100", "of the GPUs the most"
    assert best([seen(draft, Shown()) for draft in found]).name == "batch"


@pytest.mark.slow
def test_without_slurm_init_and_submit_run_here(tmp_path: Path) -> None:
    """With drawn images; a second init leaves the files alone; the sweep file need not be named."""
    sweep = Command("sweep", tmp_path, {"PATH": "/nowhere"})
    try:
        assert sweep("init").stdout == "sweep.yaml\n"
        assert "already exists" in sweep("init", expect=2).stderr
        said = sweep("submit", "--yes").stderr
        assert "sweep file: sweep.yaml" in said
        assert "4 done" in said
    finally:
        sweep.end()


def test_which_sweep_file_is_asked_where_there_are_several(sweep: Command, tmp_path: Path) -> None:
    assert "no sweep file in this folder" in sweep("status", expect=2).stderr
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("grid:\n  seed: [1]\n")
    (tmp_path / "cluster.yaml").write_text("name: x\npools: {}\n")
    assert "which sweep file: a.yaml, b.yml?" in sweep("status", expect=2).stderr
    assert "sweep file" not in sweep("status", "a.yaml", expect=2).stderr, "a file that is named is taken"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "thesis.yaml").write_text("name: 7\n")
    assert "configs/thesis.yaml" in sweep("status", "configs/thesis.yaml", expect=2).stderr, "this one, too"
    sweep.environment["SWEEP_FILE"] = "b.yml"
    assert "sweep file: b.yml" in sweep("status", expect=2).stderr

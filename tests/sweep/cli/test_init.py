"""A cluster file and a first sweep file, from what Slurm says of a cluster."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY, Command

from slurm.devices import KNOWN
from slurm.limits import ClusterLimits, NodeGroup, PartitionLimits
from slurm.pools import ClusterFile
from sweep.config.default_file import project_default
from sweep.config.explain import validate
from sweep.config.yaml_file import read_yaml
from sweep.errors import InputError
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
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.sweep]\nfile = 'configs/thesis.yaml'\n")
    assert "sweep file: configs/thesis.yaml\n" in sweep("status", expect=2).stderr, "several here settle nothing"
    sweep.environment["SWEEP_FILE"] = "b.yml"
    assert "sweep file: b.yml\n" in sweep("status", expect=2).stderr


def test_a_project_names_its_sweep_file(sweep: Command, tmp_path: Path) -> None:
    """To commands in every folder below, as seen from its pyproject.toml; the only file of a folder comes first."""
    below = tmp_path / "notes" / "of may"
    below.mkdir(parents=True)
    (tmp_path / "my study.yaml").write_text("name: 7\n")
    (tmp_path / "pyproject.toml").write_text('[tool.sweep]\nfile = "my study.yaml"\n')
    sweep.folder = below
    for arguments in (["status"], ["cancel", "--yes"]):  # with and without run ids after the file
        said = sweep(*arguments, expect=2).stderr
        assert said.startswith("sweep file: ../../my study.yaml\nsweep: ../../my study.yaml:1: ")
    (tmp_path / "notes" / "pyproject.toml").write_text("[project]\n")
    assert "no sweep file in this folder" in sweep("status", expect=2).stderr, "the nearest says nothing of it"
    (below / "a.yaml").write_text("grid:\n  seed: [1]\n")
    assert "sweep file: a.yaml\n" in sweep("status", expect=2).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.sweep]\nfile = 7\n", "'file' in [tool.sweep] must name a sweep file, got 7"),
        ("[tool.sweep]\nfile = ''\n", "'file' in [tool.sweep] must name a sweep file, got ''"),
        ("[tool.sweep]\nfile = 'gone.yaml'\n", "'file' in [tool.sweep] names gone.yaml, and there is no such file"),
        ("[tool.sweep]\nflie = 'a.yaml'\n", "unknown key 'flie' in [tool.sweep]; did you mean 'file'?"),
        ("[tool]\nsweep = 'a.yaml'\n", "'tool.sweep' must be a table"),
        ("[tool.sweep\n", "cannot be read: Expected ']'"),
        (b"\xff", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_project_that_names_no_sweep_file_well_is_told_in_a_sentence(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=re.escape(f"{project}: {words}")):
        project_default(tmp_path)


def test_a_project_without_the_section_names_none(tmp_path: Path) -> None:
    """As one of other tools, or whose table is for later."""
    for text in ("", "tool = 3\n", "[tool.other]\nfile = 'a.yaml'\n", "[tool.sweep]\n"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert project_default(tmp_path) is None
    (tmp_path / "a.yaml").touch()
    (tmp_path / "pyproject.toml").write_text("[tool.sweep]\nfile = 'a.yaml'\n")
    assert project_default(tmp_path) == Path("a.yaml")


@pytest.mark.parametrize(("folder", "shown"), [(".", "configs/thesis.yaml"), ("docs", "../configs/thesis.yaml")])
def test_in_this_repository_it_is_the_thesis_s(sweep: Command, tmp_path: Path, folder: str, shown: str) -> None:
    """As its own pyproject.toml says, from its root and from below."""
    sweep.folder = REPOSITORY / folder
    done = sweep("status", "--json", "--output", tmp_path)
    assert done.stderr.startswith(f"sweep file: {shown}\n")
    assert '"sweep": "thesis"' in done.stdout

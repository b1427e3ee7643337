"""Sweep files for the private cluster and commands run against it, shared by the tests on real Slurm."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from networks import REFERENCE, put_networks

from slurm.private_cluster.cluster import PrivateCluster
from trainer.data.prepare import prepare
from trainer.data.synthesize import synthesize

POOLS: dict[str, dict[str, Any]] = {
    "v100": {"device": "cpu", "partition": "v100", "gres": "gpu:v100:1", "memory_gb": 2, "time_limit_min": 60},
    "p100": {"device": "cpu", "partition": "p100", "gres": "gpu:p100:1", "memory_gb": 2, "time_limit_min": 60},
    "cpu": {"device": "cpu", "partition": "cpu", "memory_gb": 2, "time_limit_min": 60},
}
LONG = 100_000  # epochs that no test waits for
LOOK_S = 0.1  # between two looks at a sweep


def slurm_file(
    folder: Path,
    data: Path,
    *,
    seeds: Sequence[int] = (1,),
    ratios: Sequence[float] = (1.0,),
    epochs: int = 2,
    pool: str | Sequence[str] = "cpu",
    pools: dict[str, dict[str, Any]] | None = None,
    assign: Sequence[dict[str, Any]] | None = None,
    name: str = "study",
    gpus_per_run: int = 1,
    saves: bool = False,
    architecture: str = REFERENCE,
    **section: Any,
) -> Path:
    """Write a cluster file and a sweep file, whose path is returned. By default every run gets its own job.

    saves: whether a run has a checkpoint after every epoch.
    """
    put_networks(folder)
    (folder / "cluster.yaml").write_text(json.dumps({"name": "test", "pools": pools or POOLS}))
    sweep = {
        "name": name,
        "grid": {"architecture": [architecture], "dataset": ["cifar10"], "ratio": list(ratios), "seed": list(seeds)},
        "training": {"epochs": epochs, "batch_size": 8, "lr_milestones": []},
        "cluster": {
            "file": "./cluster.yaml",
            "assign": list(assign or [{"pool": pool if isinstance(pool, str) else list(pool)}]),
            "job_target_min": 0,
            **section,
        },
        "execution": {"checkpoint_interval_s": 0 if saves else 600, "gpus_per_run": gpus_per_run},
        "output": str(folder / "runs"),
        "data": str(data),
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(sweep))
    return path


@pytest.fixture(scope="session")
def thesis_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data large enough for the study's smallest ratio."""
    folder = tmp_path_factory.mktemp("thesis-data")
    for dataset, classes in (("cifar10", None), ("tinyimagenet", 5)):
        archive = synthesize(dataset, folder / "archives", train=1000, val=20, classes=classes)
        prepare(dataset, str(archive), folder, unofficial=True)
    return folder


@pytest.fixture
def on_slurm(slurm: PrivateCluster, tmp_path: Path) -> Iterator[Command]:
    """`python -m sweep` on the login node of a clean private cluster."""
    command = Command("sweep", tmp_path, slurm.environment)
    yield command
    command.end()


def states(command: Command, file: Path) -> dict[str, dict[str, Any]]:
    """Return every run's entry of `sweep status --json`, by id."""
    return {run["id"]: run for run in command.runs(file)}


def wait_for_state(command: Command, file: Path, run_id: str, *wanted: str, seconds: float = 90.0) -> dict[str, Any]:
    """Wait until a run is in one of the wanted states; returns its entry."""
    deadline = time.monotonic() + seconds
    while (found := states(command, file)[run_id])["state"] not in wanted:
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {' or '.join(wanted)}: {found}"
        time.sleep(LOOK_S)
    return found

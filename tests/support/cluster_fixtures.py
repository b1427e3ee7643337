"""Real Slurm for tests: a cluster of the session, given clean to each test, and clusters of a test's own.

A test that asks for one is slow and slurm by that. Those of a file run in one worker, one after the other; each worker
has a cluster of its own.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.private_cluster.cluster import PrivateCluster
from slurm.private_cluster.folder import HomeError, refuse_machine
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import Process, is_alive, this_process

FIXTURES = {"cluster", "slurm", "make_cluster"}
PREFIX = "sweep-slurm-"
CLEAN_S = 30.0


@pytest.hookimpl(tryfirst=True)  # before -m chooses and xdist groups by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a cluster."""
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())):
            for mark in (pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group(f"slurm-{item.path.stem}")):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def cluster_folder() -> Iterator[Callable[[], Path]]:
    """Give folders for clusters, with short paths; what runs in them at the end is ended.

    Skips where there can be no cluster, and fails there if CI is set.
    """
    refusal = refuse_machine()
    if refusal and os.environ.get("CI"):
        pytest.fail(refusal, pytrace=False)
    elif refusal:
        pytest.skip(refusal)
    _end_orphans()
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")))
        write_json(made[-1] / "owner.json", this_process())
        return made[-1] / "c"

    yield make
    for folder in made:
        _end(folder)


@pytest.fixture(scope="session")
def cluster(cluster_folder: Callable[[], Path]) -> PrivateCluster:
    """The session's cluster as the last test left it. Ask for `slurm` instead unless that is what you want."""
    home = PrivateCluster(cluster_folder())
    home.start()
    return home


@pytest.fixture
def slurm(cluster: PrivateCluster) -> PrivateCluster:
    """The session's cluster without jobs, all daemons alive, all nodes idle, all partitions up, nothing reserved."""
    clean(cluster)
    return cluster


@pytest.fixture
def make_cluster(cluster_folder: Callable[[], Path]) -> Iterator[Callable[[], PrivateCluster]]:
    """Make clusters of the test's own, not started; they end with it."""
    made: list[PrivateCluster] = []

    def make() -> PrivateCluster:
        made.append(PrivateCluster(cluster_folder()))
        return made[-1]

    yield make
    for home in made:
        _end(home.folder.parent)


def clean(cluster: PrivateCluster) -> None:
    """Bring a cluster into the state of a fresh start, whatever a test did to it.

    A job whose end got lost while a daemon was silent stays "completing" for minutes, until slurmctld asks its node
    again; a new cluster in the same folder is ready before that.
    """
    if not _tidied(cluster):
        cluster.stop()
        shutil.rmtree(cluster.folder)
        cluster.start()
        assert _tidied(cluster), "a new cluster is not clean"


def _tidied(cluster: PrivateCluster) -> bool:
    """End the jobs, bring back the nodes; tell whether that was done within CLEAN_S."""
    for name in cluster.daemons():
        cluster.resume(name)
    cluster.start()
    for line in cluster.run("scontrol", "-o", "show", "reservation").splitlines():
        if line.startswith("ReservationName="):
            cluster.run("scontrol", "delete", line.split()[0])
    for line in cluster.run("sinfo", "-h", "-o", "%R %a").splitlines():
        partition, availability = line.split()
        if availability != "up":
            cluster.run("scontrol", "update", f"partitionname={partition}", "state=UP")
    deadline = time.monotonic() + CLEAN_S
    while time.monotonic() < deadline:
        jobs = sorted(set(cluster.run("squeue", "-h", "-o", "%F").split()))
        busy = {node: state for node, state in cluster.nodes().items() if state != "idle"}
        if not jobs and not busy:
            return True
        if jobs:
            _try(cluster, "scancel", *jobs)
        for node, state in busy.items():
            if state.startswith(("down", "drain")):
                _try(cluster, "scontrol", "update", f"nodename={node}", "state=resume")
        time.sleep(0.1)
    return False


def _try(cluster: PrivateCluster, *command: str) -> None:
    with contextlib.suppress(HomeError):  # a job ended meanwhile, a node came back by itself
        cluster.run(*command)


def _end(folder: Path) -> None:
    PrivateCluster(folder / "c").stop()
    shutil.rmtree(folder, ignore_errors=True)


def _end_orphans() -> None:
    """End what a session left that was killed before it could."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):  # noqa: S108
        with contextlib.suppress(RecordError):
            owner = read_json(folder / "owner.json", Process)
            if owner is not None and is_alive(owner) is False:
                _end(folder)

"""Real Slurm for tests: a cluster per session, clean for each test, and clusters of a test's own.

Tests that use one are marked slow and slurm. Those of a file run sequentially in one worker; each worker has its own
cluster.
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


@pytest.hookimpl(tryfirst=True)  # before -m selects and xdist groups by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a cluster."""
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())):
            for mark in (pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group(f"slurm-{item.path.stem}")):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def cluster_folder() -> Iterator[Callable[[], Path]]:
    """Create folders for clusters, with short paths; the clusters in them are stopped at the end.

    Where there can be no cluster it skips, or fails if CI is set.
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
    """The session's cluster as the last test left it; most tests want `slurm` instead."""
    cluster = PrivateCluster(cluster_folder())
    cluster.start()
    return cluster


@pytest.fixture
def slurm(cluster: PrivateCluster) -> PrivateCluster:
    """The session's cluster: no jobs or reservations, all daemons alive, all nodes idle, all partitions up."""
    clean(cluster)
    return cluster


@pytest.fixture
def make_cluster(cluster_folder: Callable[[], Path]) -> Iterator[Callable[[], PrivateCluster]]:
    """Create clusters of the test's own, not started; they are stopped after it."""
    made: list[PrivateCluster] = []

    def make() -> PrivateCluster:
        made.append(PrivateCluster(cluster_folder()))
        return made[-1]

    yield make
    for cluster in made:
        _end(cluster.folder.parent)


def clean(cluster: PrivateCluster) -> None:
    """Reset a cluster to its state after a first start, whatever a test did to it.

    A job whose end was missed while a daemon was suspended stays "completing" for minutes, until slurmctld asks its
    node again; a new cluster in the same folder is ready sooner.
    """
    if not _tidied(cluster):
        cluster.stop()
        shutil.rmtree(cluster.folder)
        cluster.start()
        assert _tidied(cluster), "a new cluster is not clean"


def _tidied(cluster: PrivateCluster) -> bool:
    """Cancel the jobs and resume the nodes; tell whether that worked within CLEAN_S."""
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
    with contextlib.suppress(HomeError):  # the job has ended, or the node is back, meanwhile
        cluster.run(*command)


def _end(folder: Path) -> None:
    PrivateCluster(folder / "c").stop()
    shutil.rmtree(folder, ignore_errors=True)


def _end_orphans() -> None:
    """Stop clusters that killed sessions left."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):  # noqa: S108
        with contextlib.suppress(RecordError):
            owner = read_json(folder / "owner.json", Process)
            if owner is not None and is_alive(owner) is False:
                _end(folder)

"""Two users share a sweep's folder on a Slurm that shows nobody another's jobs (`PrivateData=jobs`)."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, wait_for
from slurm_fixtures import slurm_file

from slurm.private_cluster.cluster import PrivateCluster

OWNER, OTHER = "games", "mail"  # users that every Debian has, and nobody logs in as
POOLS: dict[str, dict[str, Any]] = {
    "begun": {"device": "cpu", "partition": "cpu", "memory_gb": 2, "time_limit_min": 60, "setup": ["sleep 600"]},
    "held": {"device": "cpu", "partition": "p100", "memory_gb": 2, "time_limit_min": 60},
}
BEGUN, HELD, ADDED = (f"small-cifar10-r1.0-s{seed}" for seed in (1, 2, 3))


def become(user: str) -> list[str]:
    """What starts a command as another user, who may read all that root may, and write what all may.

    Reading, for the interpreter may be in root's home.
    """
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    others = ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", *reads]
    return [*others, "sh", "-c", 'umask 0; exec "$@"', "sh"]


@pytest.fixture
def private(make_cluster: Callable[[], PrivateCluster]) -> PrivateCluster:
    """A cluster that keeps users from seeing each other's jobs, and lets their jobs reach its files."""
    cluster = make_cluster()
    cluster.start(extra=["PrivateData=jobs,usage,accounts"])
    for folder in (cluster.folder.parent, cluster.folder, *(cluster.folder / name for name in ("etc", "run", "spool"))):
        folder.chmod(0o755)
    for folder in (cluster.folder / "spool").iterdir():
        folder.chmod(0o755)
    cluster.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    return cluster


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may write; pytest's own are root's."""
    folder = Path(tempfile.mkdtemp(prefix="sweep-shared-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def users(private: PrivateCluster, shared: Path) -> Iterator[tuple[Command, Command]]:
    """`python -m sweep` of the user whose jobs they are, and of the other."""
    home = {**private.environment, "HOME": str(shared)}
    owner, other = (Command("sweep", shared, home, become(user)) for user in (OWNER, OTHER))
    yield owner, other
    owner.end()
    other.end()


def sweep_file(shared: Path, data: Path, *seeds: int) -> Path:
    rules = [{"when": {"seed": 1}, "pool": "begun"}, {"pool": "held"}]
    return slurm_file(shared, data, seeds=seeds, pools=POOLS, assign=rules)


def stand(command: Command, file: Path) -> dict[str, dict[str, Any]]:
    """Every run's entry, by id, as the command's user sees it."""
    return {run["id"]: run for run in command.json("status", file)["runs"]}


def brief(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {run_id: run["state"] for run_id, run in runs.items()}


def listed(private: PrivateCluster) -> list[str]:
    """Every job in the queue, with its user; root sees them all."""
    return sorted(private.run("squeue", "-h", "-r", "-o", "%u %i %T").splitlines())


def test_another_user_s_hidden_jobs_are_shown_as_last_known_and_left_alone(
    private: PrivateCluster, users: tuple[Command, Command], shared: Path, data: Path
) -> None:
    """Nothing is called lost, cancelled or sent twice, whoever asks; each is told whose the jobs are."""
    owner, other = users
    file = sweep_file(shared, data, 1, 2)
    owner("submit", file, "--yes")
    wait_for(lambda: brief(stand(owner, file)) == {BEGUN: "starting", HELD: "queued"}, "the first job", 60)
    seen, queue = stand(owner, file), listed(private)
    assert [line.split()[0] for line in queue] == [OWNER, OWNER]
    asked = [*become(OTHER), "squeue", "-h"]
    hidden = subprocess.run(asked, capture_output=True, text=True, timeout=20, env=private.environment, check=True)
    assert hidden.stdout == "", "this Slurm hides nothing, and the test shows nothing"

    def untouched() -> None:
        assert listed(private) == queue
        assert not list(shared.glob("runs/study/runs/*/cancel*"))
        assert brief(stand(owner, file)) == brief(seen)
        assert [run["problem"] for run in stand(owner, file).values()] == [None, None]

    whose = f"2 runs are in jobs of {OWNER}, who alone may end them or send them again"
    said = other("status", file).stderr
    assert "2 runs are shown as last known as of " in said
    assert whose in said
    found = stand(other, file)
    assert brief(found) == brief(seen)
    assert all(run["stale_since"] and f"its jobs are {OWNER}'s" in run["problem"] for run in found.values())
    refused = other("cancel", file, "--yes", expect=2).stderr
    assert whose in refused
    assert "nothing was cancelled: none of these runs is in a job of yours" in refused
    for command in ("cancel", "retry"):
        words = " ".join(other(command, file, BEGUN, "--yes", expect=2).stderr.split())
        assert f"{BEGUN} is in a job of {OWNER}, who alone may end it or send it again" in words
    assert "nothing to retry" in other("retry", file, "--yes").stderr
    assert "nothing to submit: 1 starting, 1 queued" in other("submit", file, "--yes").stderr
    untouched()

    (shared / "runs" / "study" / "queue.json").unlink()  # nor does it take the owner's last look
    assert brief(stand(other, file)) == {BEGUN: "queued", HELD: "queued"}
    assert "nothing to submit: 2 queued" in other("submit", file, "--yes").stderr
    untouched()

    sweep_file(shared, data, 1, 2, 3)
    assert "1 runs" in other("submit", file, "--yes").stderr
    assert [line.split()[0] for line in listed(private)] == [OWNER, OWNER, OTHER]
    assert brief(stand(other, file)) == brief(stand(owner, file)) == {**brief(seen), ADDED: "queued"}
    assert f"1 runs are in jobs of {OTHER}" in owner("cancel", file, "--yes").stderr
    wait_for(lambda: [line.split()[0] for line in listed(private)] == [OTHER], "the end of the owner's jobs", 60)
    ended = {BEGUN: "cancelled", HELD: "cancelled", ADDED: "queued"}
    wait_for(lambda: brief(stand(owner, file)) == ended, "the owner's view", 60)
    assert brief(stand(other, file)) == ended

    def known_to_have_ended() -> bool:
        owner("status", file)
        return f"in jobs of {OWNER}" not in other("status", file).stderr

    wait_for(known_to_have_ended, "the owner's word that its jobs have ended", 60)
    other("submit", file, "--yes")
    assert [line.split()[0] for line in listed(private)] == [OTHER] * 3
    other("cancel", file, "--yes")
    wait_for(lambda: not listed(private), "the end of the other's jobs", 60)

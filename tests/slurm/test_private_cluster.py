"""The private cluster: real Slurm that starts in seconds and leaves nothing behind."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import REPOSITORY, Command, wait_for

from slurm.pools import ClusterFile
from slurm.private_cluster import processes
from slurm.private_cluster.cluster import PrivateCluster
from slurm.private_cluster.config import FOLDER_LENGTH, NODES, PARTITIONS
from slurm.private_cluster.folder import HomeError, Made, decide, prepare, write_configuration

Clusters = Callable[[], PrivateCluster]


@pytest.fixture
def home(tmp_path: Path) -> Command:
    """`python -m slurm.private_cluster`."""
    return Command("slurm.private_cluster", tmp_path)


def submit(cluster: PrivateCluster, script: str, *options: str, folder: Path) -> str:
    """Submit a script that logs to JOB.log in the folder; give the job's id."""
    options = (*options, "--parsable", f"--output={folder}/%j.log", f"--chdir={folder}")
    return cluster.run("sbatch", *options, f"--wrap={script}").strip()


def state(cluster: PrivateCluster, job: str) -> str:
    """Return a job's state as slurmctld knows it."""
    words = cluster.run("scontrol", "-o", "show", "job", job).split()
    return next(word.removeprefix("JobState=") for word in words if word.startswith("JobState="))


def belonging(cluster: PrivateCluster) -> list[str]:
    """List what lives and was started for a cluster, by all that can tell: environment, arguments, open files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            told = [*process.cmdline(), process.environ().get("SLURM_CONF", ""), process.cwd()]
            told += [file.path for file in process.open_files()]
            if any(str(cluster.folder) in word for word in told):
                found.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    return found


def test_all_nodes_are_idle_after_the_start_and_accounting_answers(slurm: PrivateCluster) -> None:
    """Four nodes, and a job that ended is in sacct."""
    assert slurm.nodes() == dict.fromkeys(NODES, "idle")
    job = slurm.run("sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=exit 0").strip()
    wait_for(lambda: "COMPLETED" in slurm.run("sacct", "-X", "-n", "-j", job, "-o", "State"), "the row in sacct", 20)


@pytest.mark.parametrize(
    ("partition", "gres", "devices"),
    [
        ("v100", "gpu:v100:2", 2),
        ("p100", "gpu:p100:1", 1),
        ("gpu", "gpu:1", 1),
        ("urgent", "gpu:v100:4", 4),
        ("cpu", None, 0),
    ],
)
def test_a_job_sees_the_devices_it_was_given(
    slurm: PrivateCluster, tmp_path: Path, partition: str, gres: str | None, devices: int
) -> None:
    """CUDA_VISIBLE_DEVICES names as many as were asked for, and none where none were."""
    assert partition in PARTITIONS
    asked = [f"--gres={gres}"] if gres else []
    job = submit(slurm, "echo [$CUDA_VISIBLE_DEVICES]", "--wait", f"--partition={partition}", *asked, folder=tmp_path)
    given = (tmp_path / f"{job}.log").read_text().strip().strip("[]")
    assert len([device for device in given.split(",") if device]) == devices


@pytest.mark.parametrize("name", ["narvi", "local"])
def test_the_pools_of_a_cluster_file_can_be_scheduled(slurm: PrivateCluster, name: str) -> None:
    """Each request as it stands finds a node, and the constraint the right one."""
    text = (REPOSITORY / "slurm" / "clusters" / f"{name}.yaml").read_text()
    pools = ClusterFile.model_validate(yaml.safe_load(text)).pools
    assert {"v100-16gb", "p100-12gb", "v100-32gb"} <= set(pools)
    expected = {"v100-16gb": "v100-1", "v100-32gb": "v100-2", "p100-12gb": "p100-1", "cpu": "cpu-1"}
    for pool_name, pool in pools.items():
        asked = [f"--gres={pool.gres}"] if pool.gres else []
        asked += [f"--constraint={pool.constraint}"] if pool.constraint else []
        memory, minutes = f"--mem={pool.memory_gb:.0f}G", f"--time={pool.time_limit_min}"
        asked += [f"--partition={pool.partition}", f"--cpus-per-task={pool.cpus}", memory, minutes]
        command = ["sbatch", "--test-only", "--output=/dev/null", *asked, "--wrap=true"]
        done = subprocess.run(command, capture_output=True, text=True, env=slurm.environment, timeout=20)
        assert done.returncode == 0, f"{pool_name}: {done.stderr}"
        assert f"on nodes {expected[pool_name]} " in done.stderr


def test_a_daemon_that_hangs_or_dies_is_back_when_started_again(slurm: PrivateCluster) -> None:
    """What failure tests lean on: hang, crash and power cut are real, and end."""
    slurm.suspend("slurmctld")
    with pytest.raises(HomeError):
        slurm.run("squeue", timeout_s=2)
    slurm.resume("slurmctld")
    slurm.run("squeue")
    slurm.kill("slurmctld")
    with pytest.raises(HomeError):
        slurm.run("squeue")
    (slurm.folder / "state" / "trigger_state").write_bytes(b"\0\1")  # cut off; 26.05 alike minds one that is missing
    slurm.start_daemon("slurmctld")
    slurm.stop_daemon("slurmdbd")
    with pytest.raises(HomeError):
        slurm.run("sacct")
    assert slurm.start() == ["slurmdbd"]
    slurm.run("sacct")


def test_a_power_cut_takes_the_jobs_of_one_node_only(slurm: PrivateCluster, tmp_path: Path) -> None:
    """The others go on; the node is idle again once it is started."""
    files = {name: tmp_path / f"{name}.pid" for name in ("cpu", "p100")}
    for name in files:
        submit(slurm, f"echo $$ > {name}; mv {name} {name}.pid; sleep 600", f"-p{name}", folder=tmp_path)
    wait_for(lambda: all(path.exists() for path in files.values()), "both jobs", 20)
    pids = {name: int(path.read_text()) for name, path in files.items()}
    slurm.kill_node("cpu-1")
    assert not psutil.pid_exists(pids["cpu"]) or psutil.Process(pids["cpu"]).status() == psutil.STATUS_ZOMBIE
    assert psutil.Process(pids["p100"]).is_running()
    assert slurm.daemons()["slurmd cpu-1"] is None
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=down", "reason=test")  # or slurmctld takes 18 s to see it
    slurm.start_daemon("slurmd cpu-1")
    wait_for(lambda: slurm.nodes()["cpu-1"] == "idle", "the node", 30)


def test_stop_ends_its_own_and_touches_no_other(make_cluster: Clusters, slurm: PrivateCluster, tmp_path: Path) -> None:
    """Of two clusters the other goes on, with its job; a job that ignores SIGTERM ends; the user's shell stays."""
    one = make_cluster()
    one.start(accounting=False)
    stubborn = "trap '' TERM; touch $SLURM_JOB_ID.up; while true; do sleep 1; done"
    here = submit(one, stubborn, "--partition=cpu", folder=tmp_path)
    (tmp_path / "other").mkdir()
    there = submit(slurm, stubborn, folder=tmp_path / "other")
    wait_for((tmp_path / f"{here}.up").exists, "the job to end", 20)
    wait_for((tmp_path / "other" / f"{there}.up").exists, "the job to stay", 20)
    shell = subprocess.Popen(["sleep", "600"], env=one.environment)
    try:
        assert len(belonging(one)) > 6
        ended = one.stop()
        assert {"munged", "slurmctld", *(f"slurmd {node}" for node in NODES)} <= set(ended)
        assert belonging(one) == [f"{shell.pid} sleep"]
    finally:
        shell.kill()
        shell.wait()
    assert state(slurm, there) == "RUNNING"
    assert all(slurm.daemons().values())
    assert one.stop() == []


def test_stop_finds_what_no_record_tells_of(make_cluster: Clusters, tmp_path: Path) -> None:
    """Not even a deleted folder lets a daemon or a job escape."""
    one = make_cluster()
    one.start(accounting=False)
    submit(one, "touch up; sleep 600", "--partition=cpu", folder=tmp_path)
    wait_for((tmp_path / "up").exists, "the job", 20)
    shutil.rmtree(one.folder)
    assert len(PrivateCluster(one.folder).stop()) >= 6
    assert belonging(one) == []


def test_a_slurmstepd_is_known_by_the_folder_it_works_in(tmp_path: Path) -> None:
    """Newer ones (24.11) leave nothing of their environment; that of another cluster is another's."""
    step = tmp_path / "slurmstepd"
    shutil.copy(shutil.which("sleep") or "", step)
    started = []
    try:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            started.append(subprocess.Popen([step, "60"], cwd=tmp_path / name, env={}))
        _, above = processes.steps(str(tmp_path / "one" / "etc" / "slurm.conf"))
        assert [process.pid for process in above] == [started[0].pid]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="the stand-in GPUs are device files")
def test_a_disk_too_slow_for_a_new_database_is_told_in_a_sentence(tmp_path: Path) -> None:
    """And the next start makes the database anew."""

    def ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 180)

    made = decide(tmp_path, None, None, keep_ports=False)
    write_configuration(tmp_path, made)
    with pytest.raises(HomeError, match="mariadb-install-db did not end within 180 s"):
        prepare(tmp_path, made, ask)
    assert not (tmp_path / "state").exists()


def test_a_restart_keeps_what_slurm_knows(make_cluster: Clusters, tmp_path: Path) -> None:
    """Waiting jobs wait on, ended ones stay told of, running ones are lost with their node, ids go on counting."""
    one = make_cluster()
    one.start()
    ended = submit(one, "true", "--wait", folder=tmp_path)
    held = submit(one, "true", "--hold", folder=tmp_path)
    running = submit(one, "touch up; sleep 600", "--no-requeue", folder=tmp_path)
    wait_for((tmp_path / "up").exists, "the job", 20)
    ports = (one.folder / "cluster.json").read_text()
    one.stop()
    assert belonging(one) == []
    again = PrivateCluster(one.folder)
    again.start()
    assert (one.folder / "cluster.json").read_text() == ports
    assert state(again, held) == "PENDING"
    assert "COMPLETED" in again.run("sacct", "-X", "-n", "-j", ended, "-o", "State")

    def lost() -> bool:
        again.stop_daemon("slurmd cpu-1")
        again.start_daemon("slurmd cpu-1")  # a node then says what it runs; by itself it does so every minute
        time.sleep(1)
        return state(again, running) == "NODE_FAIL"

    wait_for(lost, "the lost job to be told of", 60)
    assert int(submit(again, "true", folder=tmp_path)) == int(running) + 1


def test_the_commands_say_what_a_shell_needs(home: Command, make_cluster: Clusters) -> None:
    """stdout of start can be evaluated; start and stop twice are harmless; status tells by its exit code."""
    one = make_cluster()
    home("status", one.folder, expect=1)
    first = home("start", one.folder, "--no-accounting")
    assert first.stdout == f"export SLURM_CONF={one.folder}/etc/slurm.conf\n"
    assert (one.folder / "activate").read_text() == first.stdout
    listed = subprocess.run(
        ["sh", "-c", f". {one.folder}/activate && sinfo -h -N -o %N"], capture_output=True, text=True, timeout=20
    )
    assert set(listed.stdout.split()) == set(NODES)
    second = home("start", one.folder)
    assert second.stdout == first.stdout
    assert "is already running" in second.stderr
    assert "idle" in home("status", one.folder).stdout
    assert "slurmctld" in home("stop", one.folder).stderr
    assert "nothing is running" in home("stop", one.folder).stderr
    home("status", one.folder, expect=1)
    assert belonging(one) == []


def test_what_was_started_is_ended_when_a_daemon_fails(make_cluster: Clusters) -> None:
    """The message names the daemon and shows why."""
    one = make_cluster()
    with pytest.raises(HomeError, match=r"(?s)slurmctld ended at once.*NoSuchKey"):
        one.start(accounting=False, extra=["NoSuchKey=1"])
    assert belonging(one) == []
    one.start(extra=["KillWait=7"])
    assert "KillWait                = 7 sec" in one.run("scontrol", "show", "config")


def test_secrets_are_for_their_owner_alone(slurm: PrivateCluster) -> None:
    """Nobody else enters the folder, reads the key, or the database's password."""
    modes = {"": 0o700, "etc/munge.key": 0o400, "etc/slurmdbd.conf": 0o600, "db": 0o700, "state": 0o700}
    assert {name: (slurm.folder / name).stat().st_mode & 0o777 for name in modes} == modes


def test_ports_that_others_took_are_replaced(make_cluster: Clusters) -> None:
    """The state stays, the cluster answers."""
    one = make_cluster()
    one.start(accounting=False)
    one.stop()
    ports = json.loads((one.folder / "cluster.json").read_text())["ports"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", ports["slurmctld"]))
        taken.listen()
        one.start()
        now = json.loads((one.folder / "cluster.json").read_text())["ports"]
    assert now["slurmctld"] != ports["slurmctld"]
    assert now["cpu-1"] == ports["cpu-1"]
    assert set(one.nodes()) == set(NODES)


@pytest.mark.parametrize("name", ["with space", "a" * FOLDER_LENGTH, "comma,"])
def test_a_folder_whose_name_slurm_cannot_bear_is_refused(home: Command, tmp_path: Path, name: str) -> None:
    """In a sentence, before anything is made."""
    answer = home("start", tmp_path / name, expect=1)
    assert len(answer.stderr.splitlines()) == 1
    assert str(tmp_path / name) in answer.stderr
    assert not (tmp_path / name).exists()


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """With the line that installs them; nothing is made."""
    answer = subprocess.run(
        [sys.executable, "-m", "slurm.private_cluster", "start", "/tmp/never"],  # noqa: S108
        env={"PATH": str(tmp_path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "apt-get install slurm-wlm" in answer.stderr
    assert not Path("/tmp/never").exists()  # noqa: S108


def test_a_port_that_another_program_takes_meanwhile_is_replaced(
    make_cluster: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice and the daemon's start; the other program keeps it."""
    made, other = make_cluster(), socket.socket()
    decided: list[Made] = []

    def decide_too_early(*arguments: Any, **options: Any) -> Made:
        decided.append(decide(*arguments, **options))
        if len(decided) == 1:
            other.bind(("", decided[0].ports["slurmctld"]))
            other.listen()
        return decided[-1]

    monkeypatch.setattr("slurm.private_cluster.cluster.decide", decide_too_early)
    monkeypatch.setattr("slurm.private_cluster.cluster.READY_S", 10.0)
    with other:
        made.start(accounting=False)
        assert len(made.nodes()) == 4
    first, second = (one.ports for one in decided)
    assert second["slurmctld"] != first["slurmctld"]
    assert {**second, "slurmctld": 0} == {**first, "slurmctld": 0}

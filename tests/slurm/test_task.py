"""The process that Slurm starts on a node: what it does about trainers that die, and about being told to stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ONE_THREAD, REPOSITORY, read, wait_for

from slurm.task import main
from trainer.records.attempt import ExitCode
from trainer.records.files import read_json, write_json
from trainer.records.recipe import Recipe
from trainer.records.run import Bundle, Options, Run, RunFolder, RunSpec

RUN = Run(id="r", architecture="resnet18", dataset="cifar10", ratio=1.0, seed=1)
SPEC = RunSpec(run=RUN, training=Recipe(epochs=100_000, batch_size=8, lr_milestones=()))
NEVER_S = 1e9


class Node:
    """A compute node: squeue and scontrol stand before the real ones on PATH, for no real job is this young."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.run = RunFolder(self.runs / RUN.id)
        self.bundle = folder / "bundle.json"
        self.requeues = folder / "requeues"
        self.left = folder / "left"
        self.started: list[subprocess.Popen[str]] = []
        self.runs.mkdir()
        options = Options(device="cpu", threads=1, checkpoint_interval_s=NEVER_S)
        parts = {"submission": "word-0001", "pool": "cpu", "data": data, "runs_folder": self.runs}
        write_json(self.bundle, Bundle(**parts, options=options, tasks=[[SPEC]]))
        commands = folder / "bin"
        commands.mkdir()
        for name, script in (("squeue", f'cat "{self.left}"'), ("scontrol", f'echo "$@" >> "{self.requeues}"')):
            (commands / name).write_text(f"#!/bin/sh\n{script}\n")
            (commands / name).chmod(0o755)
        self.path = f"{commands}:{os.environ['PATH']}"

    def start(self, *, restarts: int = 0, **environment: str) -> "subprocess.Popen[str]":
        """Start the task as Slurm would."""
        slurm = {"SLURM_JOB_ID": "70", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "0"}
        more = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "slurm.task", str(self.bundle)],
            env={**ONE_THREAD, "PATH": self.path, **slurm, **more, **environment},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def warned_in_attempt(self, number: int, *, left: str) -> str:
        """Start the task, warn it in its run's first epoch with so much time left, and give the run's outcome."""
        self.left.write_text(f"RUNNING|{left}\n")
        process = self.start(restarts=number - 1)
        wait_for(lambda: (read(self.run.progress) or {}).get("attempt") == number, "the run to be in work")
        process.send_signal(signal.SIGUSR2)
        process.communicate(timeout=60)
        record = read(self.run.attempt(number))
        return f"{record['outcome']}: {record['cause']}"


@pytest.fixture
def node(tmp_path: Path, data: Path) -> Iterator[Node]:
    found = Node(tmp_path, data)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


def test_a_trainer_that_dies_before_it_takes_a_run_is_not_started_for_ever(node: Node, tmp_path: Path) -> None:
    """A crash at import, or memory too small to import torch: once is enough, and the log says so."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'trainer' in sys.orig_argv: os.kill(os.getpid(), 11)\n"
    )
    process = node.start(PYTHONPATH=str(tmp_path))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.count("a trainer was killed by SIGSEGV before it took a run") == 1
    assert node.run.attempt_numbers() == []


@pytest.mark.slow
def test_a_requeue_that_slurm_denies_is_on_record(node: Node) -> None:
    """The run has been interrupted, and says that nobody but its user brings it back."""
    denied = "slurm_requeue: Requested operation is presently disabled"
    scontrol = node.folder / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{denied}' >&2\nexit 1\n")
    assert node.warned_in_attempt(1, left="1:00") == "interrupted: killed"
    message = read(node.run.attempt(1))["message"]
    assert message.startswith("stopped by SIGUSR2; its job could not go back into the queue (")
    assert "presently disabled); 'sweep submit' continues it" in message


@pytest.mark.slow
def test_a_task_that_does_not_know_which_it_is_does_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that keeps Slurm's variables out: all tasks would take the first one's runs."""
    bundle = read_json(node.bundle, Bundle)
    assert bundle is not None
    write_json(node.bundle, bundle.model_copy(update={"tasks": [*bundle.tasks, *bundle.tasks]}))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert main([str(node.bundle)]) == ExitCode.USAGE
    assert "SLURM_ARRAY_TASK_ID is not set" in capsys.readouterr().out


def test_a_run_that_all_the_time_there_is_brings_no_further_does_not_come_back_for_ever(node: Node) -> None:
    """Warned of its time limit without a checkpoint: once it may try again, the second time it has failed."""
    assert node.warned_in_attempt(1, left="1:00") == "interrupted: killed"
    assert node.requeues.read_text() == "requeue 70_0\n"
    assert node.warned_in_attempt(2, left="1:00") == "failed: timeout"
    assert node.requeues.read_text() == "requeue 70_0\n"


@pytest.mark.slow
def test_a_run_preempted_again_and_again_comes_back_each_time(node: Node) -> None:
    """With hours left, being told to stop says nothing about the time limit."""
    for number in (1, 2):
        assert node.warned_in_attempt(number, left="10:00:00") == "interrupted: killed"
        assert node.requeues.read_text().count("requeue 70_0") == number

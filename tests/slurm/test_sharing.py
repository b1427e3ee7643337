"""Several trainers in one job: each on cores of its own, and together on the GPU through a daemon that is the job's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ONE_THREAD, REPOSITORY, wait_for
from pydantic import ValidationError

from slurm.cores import core_shares, usable_cores
from slurm.mps import multi_process_service
from slurm.pools import Pool
from trainer.records.files import write_json
from trainer.records.recipe import Recipe
from trainer.records.run import Bundle, Options, Run, RunSpec

# Stands in for a trainer: writes down where it may run and what it was told of the GPU, and waits for the others.
TRAINER = """
import json, os, pathlib, sys, time
if "trainer" in sys.orig_argv:
    here = pathlib.Path({folder!r})
    told = {{name: value for name, value in os.environ.items() if name.startswith("CUDA_")}}
    seen = here / f"{{os.getpid()}}.json"
    seen.with_suffix(".new").write_text(json.dumps({{"cores": sorted(os.sched_getaffinity(0)), **told}}))
    seen.with_suffix(".new").rename(seen)
    while len(list(here.glob("*.json"))) < {workers}:
        time.sleep(0.02)
    os._exit(0)
"""
# Stands in for the driver's library, where a client of the service asks for it: gives the code that the test wants, and
# leaves the trace of a server.
DRIVER = """
import ctypes, os, pathlib, sys
if "slurm.mps" in sys.orig_argv:
    class Driver:
        def __init__(self, name):
            assert name == "libcuda.so.1"
        cuInit = cuDeviceGet = lambda self, *arguments: 0
        def cuDevicePrimaryCtxRetain(self, context, device):
            if os.environ.get("SERVED") != "no":
                pathlib.Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"], "server").write_text("4711")
            return int(os.environ.get("CUDA_ERROR", "0"))
    ctypes.CDLL = Driver
"""
# Stands in for nvidia-cuda-mps-control: -d leaves a daemon behind, "quit" ends the one of these pipes.
CONTROL = """#!/bin/sh
if [ "$1" = -d ]; then
    sleep 1000 &
    echo $! > "$CUDA_MPS_PIPE_DIRECTORY/pid"
    word=start
else
    read word
fi
echo "$CUDA_MPS_PIPE_DIRECTORY $CUDA_VISIBLE_DEVICES $word" >> {calls}
case $word in
    get_server_list) cat "$CUDA_MPS_PIPE_DIRECTORY/server" 2>/dev/null || true;;
    quit) kill -KILL "$(cat "$CUDA_MPS_PIPE_DIRECTORY/pid")";;
esac
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put the control program's stand-in on PATH; gives the file of its calls."""

    def put(script: str = CONTROL) -> Path:
        commands, calls = tmp_path / "bin", tmp_path / "calls"
        commands.mkdir()
        (commands / "nvidia-cuda-mps-control").write_text(script.format(calls=calls))
        (commands / "nvidia-cuda-mps-control").chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        (tmp_path / "sitecustomize.py").write_text(DRIVER)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        calls.touch()
        return calls

    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    return put


def execute(tmp_path: Path, *, workers: int, mps: bool = False) -> tuple[list[dict[str, Any]], str]:
    """Start a task as Slurm would, with stand-ins for its trainers; give what each of them saw, and the job's log."""
    runs, trainers = tmp_path / "runs", tmp_path / "trainers"
    runs.mkdir()
    trainers.mkdir()
    (tmp_path / "sitecustomize.py").write_text(DRIVER + TRAINER.format(folder=str(trainers), workers=workers))
    specs = [
        RunSpec(
            run=Run(id=f"r{n}", architecture="vit", dataset="cifar10", ratio=1.0, seed=n),
            training=Recipe(epochs=1, lr_milestones=()),
        )
        for n in range(workers)
    ]
    parts = {"submission": "word-0001", "pool": "v100", "data": tmp_path, "runs_folder": runs, "workers": workers}
    bundle = tmp_path / "bundle.json"
    write_json(bundle, Bundle(**parts, mps=mps, options=Options(threads=1), tasks=[specs]))
    found = subprocess.run(
        [sys.executable, "-m", "slurm.task", str(bundle)],
        env={**ONE_THREAD, **os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stdout
    return [json.loads(path.read_text()) for path in trainers.glob("*.json")], found.stdout


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "shares"),
    [
        (range(8), 2, 4, [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        ([9, 1, 5, 4, 0, 8], 3, 2, [{0, 1}, {4, 5}, {8, 9}]),
        (range(5), 2, 1, [{0, 1}, {2, 3, 4}]),
        (range(4), 2, 3, []),
        (range(2), 3, 1, []),
        (range(8), 1, 4, []),
        ([], 2, 1, []),
    ],
)
def test_cores_are_dealt_out_whole_or_not_at_all(
    cores: list[int], workers: int, threads: int, shares: list[set[int]]
) -> None:
    """Neighbours together, every core once; none where a worker would get fewer than its threads."""
    assert core_shares(cores, workers, threads) == shares


@pytest.mark.skipif(len(usable_cores()) < 2, reason="one core cannot be shared out")
def test_each_trainer_of_a_job_has_cores_of_its_own(tmp_path: Path) -> None:
    """Two at work at once share no core and leave none idle."""
    (first, second), _ = execute(tmp_path, workers=2)
    assert set(first["cores"]) | set(second["cores"]) == usable_cores()
    assert not set(first["cores"]) & set(second["cores"])


@pytest.mark.slow
def test_a_lone_trainer_keeps_all_cores(tmp_path: Path) -> None:
    """Nothing is pinned where nothing is shared, and no daemon is asked for."""
    [alone], said = execute(tmp_path, workers=1, mps=True)
    assert set(alone["cores"]) == usable_cores()
    assert "service" not in said


@pytest.mark.slow
def test_trainers_share_a_gpu_through_a_daemon_of_the_job_s_own(tmp_path: Path, control: Callable[..., Path]) -> None:
    """The daemon gets the job's GPU; its clients find it in a folder that is gone, like the daemon, when the job is."""
    calls = control()
    seen, said = execute(tmp_path, workers=2, mps=True)
    [pipes] = {trainer["CUDA_MPS_PIPE_DIRECTORY"] for trainer in seen}
    assert [trainer["CUDA_VISIBLE_DEVICES"] for trainer in seen] == ["0", "0"]
    words = ("start", "get_server_list", "quit")
    assert calls.read_text().splitlines() == [f"{pipes} 3 {word}" for word in words]
    assert not Path(pipes).exists()
    assert "service" not in said


def test_the_daemon_outlives_the_signals_of_the_job(control: Callable[..., Path]) -> None:
    """Slurm sends them to every process; the trainers still save then. At the block's end the daemon is gone."""
    control()
    with multi_process_service() as environment:
        daemon = psutil.Process(int(Path(environment["CUDA_MPS_PIPE_DIRECTORY"], "pid").read_text()))
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            daemon.send_signal(number)
        time.sleep(0.3)
        assert lives(daemon)
    wait_for(lambda: not lives(daemon), "the daemon to end")


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_service_that_is_offered_is_used_and_left_alone(
    control: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that runs MPS says so in the job's environment."""
    calls = control()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/site-mps")
    with multi_process_service() as environment:
        assert environment == dict(os.environ)
    assert calls.read_text() == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'An instance of this daemon is already running'\nexit 1\n", "An instance of this daemon"),
        ("#!/bin/sh\nexit 3\n", "nvidia-cuda-mps-control ended with exit code 3"),
        (None, "no nvidia-cuda-mps-control on PATH"),
    ],
)
def test_without_the_service_the_trainers_go_on(
    script: str | None, reason: str, control: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Their environment is the job's, and the log says why in one sentence."""
    if script:
        control(script)
    with multi_process_service() as environment:
        assert environment == dict(os.environ)
    assert capfd.readouterr().out.startswith(f"no multi-process service, the runs share the GPU in turn: {reason}")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"CUDA_ERROR": "805"}, "a client was not served: CUDA error 805 (the daemon's server cannot be reached)"),
        ({"CUDA_ERROR": "2"}, "a client was not served: CUDA error 2"),
        ({"SERVED": "no"}, "a client used the GPU without it"),
    ],
)
def test_a_service_that_serves_nobody_is_left(
    answer: dict[str, str],
    reason: str,
    control: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its daemon starts all the same, and every trainer would fail; it is ended in the end."""
    calls = control()
    for name, value in answer.items():
        monkeypatch.setenv(name, value)
    with multi_process_service() as environment:
        assert environment == dict(os.environ)
    assert capfd.readouterr().out == f"no multi-process service, the runs share the GPU in turn: {reason}\n"
    assert calls.read_text().splitlines()[-1].endswith(" quit")


@pytest.mark.parametrize("device", ["cpu", "p100", "mi210"])
def test_a_pool_without_volta_or_newer_is_refused_the_service(device: str) -> None:
    """There it would put the runs into one address space, where one's stray write is another's wrong number."""
    assert Pool(device="v100", partition="gpu", mps=True).mps
    with pytest.raises(ValidationError, match=f"needs a V100 or newer, not {device}; leave it out"):
        Pool(device=device, partition="gpu", mps=True)

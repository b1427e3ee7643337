"""What becomes of the runs after one that failed on a GPU: they get its memory, and a process that still works."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ONE_THREAD, REPOSITORY, read
from networks import REFERENCE

from slurm.workers import Workers
from trainer.distributed.process_group import reaching
from trainer.loop.device import DeviceError, NodeError
from trainer.loop.group import LostError
from trainer.loop.trainer import Trainer
from trainer.records.attempt import Cause, ExitCode
from trainer.records.claim import Claim, take
from trainer.records.files import write_json
from trainer.records.process import describe
from trainer.records.recipe import Recipe
from trainer.records.run import Bundle, Options, Run, RunFolder, RunSpec
from trainer.run.bundle import execute_bundle
from trainer.run.early_exit import Job
from trainer.run.execute import execute
from trainer.run.failure import cause_of
from trainer.run.last_word import LastWord
from trainer.stop import CutOff, StopSignal

GOOD = Recipe(epochs=1, batch_size=8)
BAD = GOOD.model_copy(update={"learning_rate": 1e30})
# The trainer, but for a GPU that is broken after each run that failed; there is none to break.
BROKEN = """
import sys
import trainer.run.bundle
from trainer.__main__ import main
trainer.run.bundle.is_broken = lambda name: True
sys.exit(main())
"""


def spec(name: str, recipe: Recipe) -> RunSpec:
    run = Run(id=name, architecture=REFERENCE, dataset="cifar10", ratio=1.0, seed=42)
    return RunSpec(run=run, training=recipe)


@pytest.fixture
def broken(data: Path, tmp_path: Path) -> Callable[..., int]:
    """Execute a bundle of runs, one of them bad, in a process whose GPU breaks there. Gives the exit code."""

    def run(recipes: list[Recipe], *more: str) -> int:
        specs = [spec(str(number), recipe) for number, recipe in enumerate(recipes)]
        options = Options(device="cpu", threads=1)
        parts = {"submission": "word-0001", "pool": "local", "data": data, "runs_folder": tmp_path, "options": options}
        write_json(tmp_path / "bundle.json", Bundle(**parts, tasks=[specs]))
        (tmp_path / "broken.py").write_text(BROKEN)
        command = [sys.executable, str(tmp_path / "broken.py"), "--bundle", str(tmp_path / "bundle.json"), *more]
        environment = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
        return subprocess.run(command, cwd=tmp_path, env=environment, timeout=120).returncode

    return run


@pytest.mark.slow
def test_runs_after_a_gpu_fault_go_on_in_a_fresh_process(broken: Callable[..., int], tmp_path: Path) -> None:
    """Under the same process number, so that the job is not over; the run that failed is not tried again."""
    assert broken([GOOD, BAD, GOOD]) == ExitCode.FAILED
    outcomes = [[read(path)["outcome"] for path in (tmp_path / name / "attempts").iterdir()] for name in "012"]
    assert outcomes == [["done"], ["failed"], ["done"]]
    processes = [read(tmp_path / name / "attempts" / "0001.json")["process"]["pid"] for name in "012"]
    assert len(set(processes)) == 1


@pytest.mark.slow
def test_a_gpu_that_breaks_fresh_processes_burns_no_further_runs(broken: Callable[..., int], tmp_path: Path) -> None:
    """What is left keeps its attempt for another GPU."""
    assert broken([BAD, GOOD], "--after-gpu-fault") == ExitCode.FAILED
    assert read(tmp_path / "0" / "attempts" / "0001.json")["outcome"] == "failed"
    assert not (tmp_path / "1").exists()


@pytest.mark.slow
def test_a_run_that_failed_gives_its_memory_back(data: Path, tmp_path: Path) -> None:
    """No cycle keeps its trainer until a collection: the next run of the bundle needs the GPU's memory."""
    gc.collect()
    gc.disable()
    try:
        options = Options(device="cpu", threads=1)
        code = execute(
            spec("bad", BAD), RunFolder(tmp_path / "bad"), data, Job("1", None, "local"), options, StopSignal()
        )
        assert code is ExitCode.FAILED
        assert not [found for found in gc.get_objects() if type(found) is Trainer]
    finally:
        gc.enable()


def test_a_node_without_a_usable_gpu_burns_no_further_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run says why; those after it keep their attempt for another node."""

    def refuse(name: str, **more: int) -> torch.device:
        raise NodeError("the NVIDIA driver here, 470.82.01, is too old")

    monkeypatch.setattr("trainer.run.execute.choose_device", refuse)
    options = Options(device="auto", threads=1)
    parts = {"submission": "word-0001", "pool": "local", "data": data, "runs_folder": tmp_path, "options": options}
    bundle = Bundle(**parts, tasks=[[spec("first", GOOD), spec("second", GOOD)]])
    assert execute_bundle(bundle, 0, Job("1", "word-0001", "local"), StopSignal()) is ExitCode.FAILED
    record = read(tmp_path / "first" / "attempts" / "0001.json")
    assert (record["outcome"], record["cause"]) == ("failed", "gpu_fault")
    assert "470.82.01" in record["message"]
    assert not (tmp_path / "second").exists()


NCCL = """\
NCCL error in: ../ProcessGroupNCCL.cpp:3690, unhandled cuda error (run with NCCL_DEBUG=INFO), NCCL version 2.26.2
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
Cuda failure {words}"""


def test_processes_that_cannot_reach_each_other_say_why() -> None:
    """A GPU that is full or broken keeps its own words; of the rest, NCCL's last line says most."""
    with pytest.raises(RuntimeError, match="out of memory"), reaching():
        raise RuntimeError(NCCL.format(words="2 'out of memory'"))
    with (
        pytest.raises(LostError, match=r"^NCCL error in: .* 2.26.2: Cuda failure 101 'invalid device ordinal'$"),
        reaching(),
    ):
        raise RuntimeError(NCCL.format(words="101 'invalid device ordinal'"))
    with pytest.raises(LostError, match=r"^Connection closed by peer$"), reaching():
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("epochs", "outcomes"),
    [
        ((3, 3), [("interrupted", "lost"), ("failed", "exception")]),
        ((3, 2), [("interrupted", "lost"), ("failed", "exception")]),
        ((3, 4), [("interrupted", "lost"), ("interrupted", "lost")]),
    ],
)
def test_a_run_cut_off_again_has_failed(
    tmp_path: Path, epochs: tuple[int, int], outcomes: list[tuple[str, str]]
) -> None:
    """Whoever submits what is interrupted would go round for ever; a run that came further goes on."""
    found = []
    for number, epoch in enumerate(epochs, start=1):
        claim = take(RunFolder(tmp_path / "run"), run_id="run", job=str(number), submission=None)
        code = LastWord(claim.folder, claim).write(CutOff("cut off from the run's other processes"), epoch)
        record = read(claim.folder.attempt(number))
        found.append((record["outcome"], record["cause"]))
        assert code is (ExitCode.FAILED if record["outcome"] == "failed" else ExitCode.INTERRUPTED)
    assert found == outcomes


def abort(workers: Workers, claim: Claim, **record: Any) -> None:
    """Have a trainer of theirs, which has this claim, end itself by SIGABRT."""
    process = subprocess.Popen([sys.executable, "-c", "import os; input(); os.abort()"], stdin=subprocess.PIPE)
    claim.update(process=describe(process.pid), **record)
    workers.running.append(process)
    process.communicate(b"\n", timeout=60)


def test_a_trainer_killed_between_runs_had_begun(tmp_path: Path) -> None:
    """Another takes what is left; one that dies before its first run is not replaced for ever."""
    parts = {"submission": "word-0001", "pool": "local", "data": tmp_path, "runs_folder": tmp_path}
    workers = Workers(Bundle(**parts, options=Options(), tasks=[[spec("run", GOOD), spec("left", GOOD)]]), 0)
    abort(workers, take(RunFolder(tmp_path / "run"), run_id="run", job="1", submission="earlier"))
    [ended] = workers.ended()
    assert (ended.held, ended.took) == ((), False)
    claim = take(RunFolder(tmp_path / "run"), run_id="run", job="2", submission="word-0001")
    abort(workers, claim, outcome="failed", cause=Cause.CUDA_OOM)
    [ended] = workers.ended()
    assert (ended.held, ended.took) == ((), True)
    assert read(claim.folder.attempt(2))["cause"] == "cuda_oom"


@pytest.mark.parametrize(
    ("processes", "ending"),
    [(1, ("interrupted", "killed")), (4, ("interrupted", "lost")), (4, ("failed", "gpu_fault"))],
)
def test_a_trainer_that_torch_aborts_was_cut_off(tmp_path: Path, processes: int, ending: tuple[str, str]) -> None:
    """NCCL's watchdog ends the process, which says nothing more; the second time that is a failure."""
    options = Options(device="cuda", processes=processes)
    parts = {"submission": "word-0001", "pool": "local", "data": tmp_path, "runs_folder": tmp_path, "options": options}
    workers = Workers(Bundle(**parts, tasks=[[spec("run", GOOD)]]), 0)
    folder = RunFolder(tmp_path / "run")
    if ending[0] == "failed":
        take(folder, run_id="run", job="1", submission=None).close("interrupted", 2, Cause.LOST)
    claim = take(folder, run_id="run", job="2", submission="word-0001")
    abort(workers, claim)
    [ended] = workers.ended()
    assert (ended.held, ended.took) == (("run",), True)
    record = read(folder.attempt(claim.record.number))
    assert (record["outcome"], record["cause"]) == ending
    assert "SIGABRT" in record["message"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), Cause.CUDA_OOM),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), Cause.CUDA_OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Cause.CUDA_OOM),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Cause.CUDA_OOM),
        (RuntimeError("CUDA error: operation failed\nCUDA driver error: out of memory"), Cause.CUDA_OOM),
        (RuntimeError("cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY"), Cause.CUDA_OOM),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), Cause.CUDA_OOM),
        (RuntimeError("NCCL error\nLast error:\nCuda failure 2 'out of memory'"), Cause.CUDA_OOM),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), Cause.HOST_OOM),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), Cause.HOST_OOM),
        (RuntimeError("NCCL error\nLast error:\nCuda failure 'unspecified launch failure'"), Cause.GPU_FAULT),
        (NodeError("the NVIDIA driver here is too old"), Cause.GPU_FAULT),
        (DeviceError("bf16 is emulated"), Cause.EXCEPTION),
        (RuntimeError("CUDA error: all CUDA-capable devices is/are busy or unavailable"), Cause.GPU_FAULT),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Cause.GPU_FAULT),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.GPU_FAULT),
        (RuntimeError("CUDA error: unspecified launch failure"), Cause.GPU_FAULT),
        (RuntimeError("CUDA error: device-side assert triggered"), Cause.EXCEPTION),
        (ValueError("an illegal memory access was encountered"), Cause.EXCEPTION),
    ],
)
def test_an_error_of_the_gpu_has_its_cause(error: Exception, cause: Cause) -> None:
    """Full, broken, or told something wrong: each wants another remedy."""
    assert cause_of(error) is cause

"""What becomes of the runs after one that failed on a GPU: they get its memory, and a process that still works."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ONE_THREAD, REPOSITORY, read

from trainer.loop.trainer import Trainer
from trainer.records.attempt import Cause, ExitCode
from trainer.records.files import write_json
from trainer.records.recipe import Recipe
from trainer.records.run import Bundle, Options, Run, RunFolder, RunSpec
from trainer.run.early_exit import Job
from trainer.run.execute import execute
from trainer.run.failure import cause_of
from trainer.stop import StopSignal

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
    run = Run(id=name, architecture="resnet18", dataset="cifar10", ratio=1.0, seed=42)
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


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), Cause.CUDA_OOM),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), Cause.CUDA_OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Cause.CUDA_OOM),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Cause.CUDA_OOM),
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

"""What becomes of the runs after one that failed on a GPU: they get its memory, and a process that still works."""

import gc
from pathlib import Path

import pytest

from trainer.loop import Trainer
from trainer.recipe import Recipe
from trainer.records import ExitCode, Options, Run, RunFolder, RunSpec
from trainer.run import execute
from trainer.settled import Job
from trainer.stop import StopSignal

GOOD = Recipe(epochs=1, batch_size=8)
BAD = GOOD.model_copy(update={"learning_rate": 1e30})


def spec(name: str, recipe: Recipe) -> RunSpec:
    run = Run(id=name, architecture="resnet18", dataset="cifar10", ratio=1.0, seed=42)
    return RunSpec(run=run, training=recipe)


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

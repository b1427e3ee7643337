"""Bundles whose second run meets a fault of the GPU: what is recorded, and what becomes of the run after it."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu_check.setting import SEED, Answer, Found, Setting
from benchmarks.launch import environment
from trainer.records.attempt import AttemptRecord
from trainer.records.files import read_json, write_json
from trainer.records.recipe import Recipe
from trainer.records.result import Result
from trainer.records.run import Bundle, Options, Run, RunFolder, RunSpec
from trainer.records.status import ErrorRecord

PATIENCE_S = 120.0
BAD_LABEL, OUT_OF_MEMORY = "bad-label", "out-of-memory"


def bad_label(setting: Setting, answer: Answer) -> None:
    """Train a second run with an invalid label, which fails an assertion on the device, eager and recorded."""
    for name, epochs in (("as written", 2), ("recorded", setting.epochs)):
        recipe = Recipe(epochs=epochs, batch_size=setting.batch)
        answer(name, _run(name, BAD_LABEL, recipe, recipe, setting) | {"expected": "exception"})


def out_of_memory(setting: Setting, answer: Answer) -> None:
    """Train a second run for which a neighbour leaves too little memory. The neighbour stays."""
    small = Recipe(epochs=4, batch_size=setting.batch)
    large = small.model_copy(update={"batch_size": setting.some // small.replicas, "precision": "fp32"})
    expected = {"expected": "host_oom" if setting.rehearsal else "cuda_oom"}
    answer("beside a neighbour", _run("neighbour", OUT_OF_MEMORY, small, large, setting) | expected)


def _run(name: str, fault: str, small: Recipe, spoilt: Recipe, setting: Setting) -> Found:
    folder = Path(setting.work) / "faults" / f"{fault}-{name.replace(' ', '-')}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier check
    folder.mkdir(parents=True)
    runs = (("before", "resnet18", small), (fault, "vit", spoilt), ("after", "resnet18", small))
    specs = [
        RunSpec(run=Run(id=name, architecture=network, dataset="cifar10", ratio=1.0, seed=SEED), training=recipe)
        for name, network, recipe in runs
    ]
    bundle = Bundle(
        submission=name,
        pool="check",
        data=setting.data(),
        runs_folder=folder,
        options=Options(device=setting.device, threads=1),
        tasks=[specs],
    )
    write_json(folder / "bundle.json", bundle)
    command = [sys.executable, "-m", "benchmarks.gpu_check.altered", fault, "--bundle", str(folder / "bundle.json")]
    began = time.monotonic()
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)
    return {
        "code": process.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "runs": {spec.run.id: _outcome(RunFolder(folder / spec.run.id)) for spec in specs},
        "end": process.stderr.strip().splitlines()[-6:],
    }


def _outcome(folder: RunFolder) -> Found:
    if read_json(folder.result, Result):
        return {"state": "done"}
    error = read_json(folder.error, ErrorRecord)
    if error:
        said = error.model_dump(mode="json", include={"cause", "exception", "message"})
        return {"state": "failed", **said, "at": error.traceback.strip().splitlines()[-8:]}
    numbers = folder.attempt_numbers()
    attempt = read_json(folder.attempt(numbers[-1]), AttemptRecord) if numbers else None
    return {"state": attempt.outcome or "open" if attempt else "not begun"}

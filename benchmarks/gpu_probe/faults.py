"""Bundles whose second run causes a fault on the GPU: what is recorded, and what happens to the runs after it.

`python -m benchmarks.gpu_probe.faults BUNDLE NOTES` trains a bundle, notes the GPU's memory before and after every
run, and puts an invalid label into runs whose id says so.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_probe.setting import REPOSITORY, SEED, Answer, Setting, environment
from trainer.records.attempt import AttemptRecord
from trainer.records.files import read_json, write_json
from trainer.records.recipe import Recipe
from trainer.records.result import Result
from trainer.records.run import Bundle, Options, Run, RunFolder, RunSpec
from trainer.records.status import ErrorRecord

PATIENCE_S = 120.0
BAD = "bad-label"


def out_of_memory(setting: Setting, answer: Answer) -> None:
    """Train a second run whose step does not fit in the GPU's memory, and a fourth that needs half of it."""
    small = Recipe(epochs=4, batch_size=setting.batch)
    sizes = (64, 32) if setting.tiny else (setting.more, setting.more // 22 * 4)
    huge, half = (small.model_copy(update={"batch_size": images // 4, "epochs": 2}) for images in sizes)
    runs = [("resnet18", small, "before"), ("vit", huge, "huge"), ("resnet18", small, "after"), ("vit", half, "half")]
    answer("bundle", _run("oom", runs, setting, setting.few if setting.tiny else setting.more))


def bad_label(setting: Setting, answer: Answer) -> None:
    """Train a second run with an invalid label, which fails an assertion on the device."""
    for name, epochs in (("as written", 2), ("recorded", setting.epochs)):
        recipe = Recipe(epochs=epochs, batch_size=setting.batch)
        runs = [("resnet18", recipe, "before"), ("vit", recipe, BAD), ("resnet18", recipe, "after")]
        answer(name, _run(f"label-{name.replace(' ', '-')}", runs, setting, setting.few))


def _run(name: str, runs: list[tuple[str, Recipe, str]], setting: Setting, images: int) -> dict[str, Any]:
    folder = Path(setting.work) / "faults" / name
    folder.mkdir(parents=True, exist_ok=True)
    specs = [
        RunSpec(
            run=Run(id=f"{number}-{word}", architecture=architecture, dataset="cifar10", ratio=1.0, seed=SEED),
            training=recipe,
        )
        for number, (architecture, recipe, word) in enumerate(runs)
    ]
    options = Options(device=setting.device, threads=1)
    data = setting.data(images)
    bundle = Bundle(submission=name, pool="probe", data=data, runs_folder=folder, options=options, tasks=[specs])
    file, notes = folder / "bundle.json", folder / "notes.jsonl"
    write_json(file, bundle)
    command = [sys.executable, "-m", "benchmarks.gpu_probe.faults", str(file), str(notes)]
    began = time.monotonic()
    process = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    return {
        "code": process.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "runs": {spec.run.id: _outcome(RunFolder(folder / spec.run.id)) for spec in specs},
        "memory": [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else [],
        "end": process.stderr.strip().splitlines()[-6:],
    }


def _outcome(folder: RunFolder) -> dict[str, Any]:
    if read_json(folder.result, Result):
        return {"state": "done"}
    error = read_json(folder.error, ErrorRecord)
    if error:
        said = error.model_dump(mode="json", include={"cause", "exception", "message"})
        return {"state": "failed", **said, "at": error.traceback.strip().splitlines()[-8:]}
    numbers = folder.attempt_numbers()
    attempt = read_json(folder.attempt(numbers[-1]), AttemptRecord) if numbers else None
    return {"state": attempt.outcome or "open" if attempt else "not begun"}


def _noting(arguments: list[str]) -> int:
    """Execute a bundle as `python -m trainer` does, noting memory and inserting the invalid label."""
    import torch

    from trainer.__main__ import main
    from trainer.loop.build import make_trainer
    from trainer.loop.trainer import Trainer
    from trainer.run import attempt, bundle
    from trainer.run.execute import execute

    notes = Path(arguments[1])

    def note(run_id: str, moment: str) -> None:
        found: dict[str, object] = {"run": run_id, "moment": moment}
        try:
            if torch.cuda.is_available():
                free, whole = torch.cuda.mem_get_info()
                found["allocated_gib"] = round(torch.cuda.memory_allocated() / 2**30, 3)
                found["reserved_gib"] = round(torch.cuda.memory_reserved() / 2**30, 3)
                found["used_gib"] = round((whole - free) / 2**30, 3)
        except RuntimeError as error:
            found["problem"] = str(error).partition("\n")[0]
        with notes.open("a") as file:
            file.write(json.dumps(found) + "\n")

    def noted(spec: RunSpec, *others: Any) -> Any:
        note(spec.run.id, "before")
        try:
            return execute(spec, *others)
        finally:
            note(spec.run.id, "after")

    def spoilt(spec: RunSpec, *others: Any) -> Trainer:
        trainer = make_trainer(spec, *others)
        if BAD in spec.run.id:
            trainer.train.labels[0] = 9999
        return trainer

    for module, name, stand_in in ((bundle, "execute", noted), (attempt, "make_trainer", spoilt)):
        setattr(module, name, stand_in)
    return main(["--bundle", arguments[0], "--task", "0"])


if __name__ == "__main__":
    sys.exit(_noting(sys.argv[1:]))

"""Whether a run repeats bit for bit: captured, eager, and with torch's deterministic algorithms.

`python -m benchmarks.gpu_probe.repeats SETTING ARCHITECTURE DATASET PRECISION` prints one combination's answer.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks.gpu_probe.setting import REPOSITORY, Answer, Combination, Setting, combinations, environment
from trainer.records.result import History

EPOCHS = 6  # of five steps each: three eager, the others replayed
AT_ONCE = 4
PATIENCE_S = 150.0


def repeat_all(setting: Setting, answer: Answer) -> None:
    """Compare the ways for every combination, a process each."""

    def execute(one: Combination) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu_probe.repeats", setting.to_json()]
        command += [one.architecture, one.dataset, one.precision]
        more = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1"}
        found = subprocess.run(
            command, cwd=REPOSITORY, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE_S
        )
        lines = found.stdout.strip().splitlines()
        answer(str(one), json.loads(lines[-1]) if found.returncode == 0 else {"problem": found.stderr[-2000:]})

    chosen = combinations(("fp32",))[:1] if setting.tiny else combinations()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(execute, chosen))


def repeat(one: Combination, setting: Setting) -> dict[str, Any]:
    """Train twice in each way; compare the two, and the first with that of the captured way."""
    import torch

    from benchmarks.gpu_probe.end_to_end import compared
    from benchmarks.gpu_probe.making import make, train
    from trainer.loop.trainer import Trainer

    def recorded() -> Trainer:
        return train(make(one, setting, epochs=EPOCHS), EPOCHS)

    def as_written(search: bool) -> Trainer:
        trainer = make(one, setting, epochs=EPOCHS, capture=False)
        torch.backends.cudnn.benchmark = search
        return train(trainer, EPOCHS)

    def deterministic() -> Trainer:
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            return recorded()
        finally:
            torch.backends.cudnn.deterministic = False
            torch.use_deterministic_algorithms(False)

    ways = {
        "recorded": recorded,
        "as written, algorithms searched": lambda: as_written(True),
        "as written": lambda: as_written(False),
        "recorded, deterministic": deterministic,
    }
    found: dict[str, Any] = {}
    reference: _Trained | None = None
    for name, way in ways.items():
        first, second = _Trained.of(way()), _Trained.of(way())
        reference = reference or first
        found[name] = {
            "twice": compared(first.history, second.history) | {"weights": _apart(first, second)},
            "beside recorded": compared(reference.history, first.history) | {"weights": _apart(reference, first)},
            "replayed": first.replayed,
            "losses": first.history.train_loss,
        }
    return found


class _Trained(NamedTuple):
    """The compared parts of a run, kept so that its trainer can be freed."""

    history: History
    weights: list[Any]
    replayed: bool

    @classmethod
    def of(cls, trainer: Any) -> "_Trained":
        weights = [parameter.detach().cpu() for parameter in trainer.model.parameters()]
        return cls(trainer.history, weights, getattr(trainer.execution, "_replay", None) is not None)


def _apart(mine: _Trained, theirs: _Trained) -> float:
    """Compute the largest difference of any weight."""
    return max(float((a - b).abs().max()) for a, b in zip(mine.weights, theirs.weights, strict=True))


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    print(json.dumps(repeat(Combination(*sys.argv[2:5]), Setting.from_json(sys.argv[1]))))

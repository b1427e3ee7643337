"""`python -m trainer` with one thing altered: `python -m benchmarks.gpu_check.altered CHANGE ARGUMENTS`.

eager: no step is recorded. bad-label, out-of-memory: what befalls the runs whose id says so.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from trainer.__main__ import main

LEFT_BYTES = 3 << 29  # of the card; enough for the small run that comes next, if the one before gives its memory back
# Takes the rest, until its input ends.
NEIGHBOUR = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("holds", flush=True)
sys.stdin.read()
"""
NEIGHBOURS: list["subprocess.Popen[bytes]"] = []  # whose input ends with this process


def eager(arguments: list[str]) -> int:
    """Train with every step executed as it is written."""
    with patch("trainer.loop.trainer.WORTH_RECORDING", sys.maxsize):
        return main(arguments)


def spoil(arguments: list[str], word: str, before: Callable[[Any], None]) -> int:
    """Train, and alter the trainers of runs whose id ends with the word."""
    from trainer.loop.build import make_trainer

    def spoilt(spec: Any, *others: Any) -> Any:
        trainer = make_trainer(spec, *others)
        if spec.run.id.endswith(word):
            before(trainer)
        return trainer

    with patch("trainer.run.attempt.make_trainer", spoilt):
        return main(arguments)


def mislabel(trainer: Any) -> None:
    """Give an image of the first epoch's last step a label that names no class: an assertion fails on the device."""
    trainer.train.labels[trainer.draws.take(0).order[-1, 0]] = 9999


def fill(trainer: Any) -> None:
    """Have a neighbour take the card's memory for the rest of this process's life; on a CPU, ask for too much."""
    if trainer.device.type == "cpu":
        trainer.train.images.new_empty(1 << 50)
        return
    command = [sys.executable, "-c", NEIGHBOUR, str(LEFT_BYTES)]
    neighbour = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert neighbour.stdout
    if not neighbour.stdout.readline():
        raise RuntimeError("the neighbour could not take the card's memory")
    NEIGHBOURS.append(neighbour)


if __name__ == "__main__":
    change, arguments = sys.argv[1], sys.argv[2:]
    if change == "eager":
        sys.exit(eager(arguments))
    sys.exit(spoil(arguments, change, {"bad-label": mislabel, "out-of-memory": fill}[change]))

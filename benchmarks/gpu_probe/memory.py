"""A run's GPU memory, phase by phase, in a process of its own.

`python -m benchmarks.gpu_probe.memory SETTING ARCHITECTURE DATASET PRECISION` prints one combination's answer.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.gpu_probe.setting import REPOSITORY, Answer, Combination, Setting, combinations, environment

AT_ONCE = 3
PATIENCE_S = 60.0
GIB = 2**30


def hold_all(setting: Setting, answer: Answer) -> None:
    """Measure every combination, a process each."""

    def execute(one: Combination) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu_probe.memory", setting.to_json()]
        command += [one.architecture, one.dataset, one.precision]
        found = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment(OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        lines = found.stdout.strip().splitlines()
        answer(str(one), json.loads(lines[-1]) if found.returncode == 0 else {"problem": found.stderr[-1500:]})

    chosen = combinations(("fp32",))[:1] if setting.tiny else combinations()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(execute, chosen))


def hold(one: Combination, setting: Setting) -> dict[str, Any]:
    """Measure [allocated, its peak, reserved, its peak] in GiB after each phase."""
    import torch

    from benchmarks.gpu_probe.inside import take_steps
    from benchmarks.gpu_probe.making import make, no_tick, wait
    from trainer.loop.step import WARM_UP

    found: dict[str, Any] = {}

    def note(phase: str) -> None:
        wait(trainer.device)
        if trainer.device.type == "cuda":
            ask = (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated)
            kept = (torch.cuda.memory_reserved, torch.cuda.max_memory_reserved)
            found[phase] = [round(measure() / GIB, 3) for measure in (*ask, *kept)]
            torch.cuda.reset_peak_memory_stats()

    trainer = make(one, setting)
    note("begun")
    step = take_steps(trainer)
    for _ in range(WARM_UP):
        step()
    note("steps as written")
    step()
    note("recording")
    for _ in range(6):
        step()
    note("replays")
    trainer._evaluate(no_tick)
    note("evaluation")
    for _ in range(6):
        step()
    trainer._evaluate(no_tick)
    note("second epoch")
    return found


if __name__ == "__main__":
    print(json.dumps(hold(Combination(*sys.argv[2:5]), Setting.from_json(sys.argv[1]))))

"""A run's GPU memory, phase by phase, in a process of its own.

`python -m benchmarks.gpu_check.memory SETTING ARCHITECTURE DATASET PRECISION` prints one combination's answer.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gpu_check.setting import GIB, Answer, Combination, Found, Setting, combinations
from benchmarks.launch import environment
from trainer.data.catalog import DATASETS

HELD_GIB = 8.0
PATIENCE_S = 60.0
# Of the whole dataset's images, weights and moments, a step and an evaluation, which live together, by the shapes of
# tensors: in fp32, in the other formats.
EXPECTED_GIB = {
    ("resnet18", "cifar10"): (0.9, 0.7),
    ("resnet18", "tinyimagenet"): (3.7, 2.7),
    ("vit", "cifar10"): (4.2, 3.0),
    ("vit", "tinyimagenet"): (5.6, 4.3),
}


def hold_all(setting: Setting, answer: Answer) -> None:
    """Measure every combination, a process each."""

    def execute(one: Combination) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu_check.memory", setting.to_json()]
        command += [one.architecture, one.dataset, one.precision]
        found = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)
        lines = found.stdout.strip().splitlines()
        answer(str(one), json.loads(lines[-1]) if found.returncode == 0 else {"problem": found.stderr[-1500:]})

    with ThreadPoolExecutor(setting.at_once(2, HELD_GIB)) as pool:
        list(pool.map(execute, combinations(setting)))
    if setting.rehearsal:
        answer("missing", "a CPU has no such memory")


def hold(one: Combination, setting: Setting) -> Found:
    """Measure [allocated, its peak, reserved, its peak] in GiB after each phase.

    whole_gib: what stays, a step and an evaluation, with all images of the dataset instead of the drawn ones. What the
    allocator keeps unused is not in it, nor is the context.
    """
    import torch

    from benchmarks.gpu_check.inside import take_steps
    from benchmarks.gpu_check.making import make, no_tick, wait
    from trainer.loop.step import WARM_UP

    found: Found = {}

    def note(phase: str) -> None:
        wait(trainer.device)
        if trainer.device.type == "cuda":
            ask = (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated)
            kept = (torch.cuda.memory_reserved, torch.cuda.max_memory_reserved)
            found[phase] = [round(measure() / GIB, 3) for measure in (*ask, *kept)]
            torch.cuda.reset_peak_memory_stats()

    trainer = make(one, setting)
    note("begun")
    trainer.try_evaluation()
    note("trial")
    step = take_steps(trainer)
    for _ in range(WARM_UP):
        step()
    note("steps as written")
    for _ in range(7):
        step()
    note("replays")
    trainer._evaluate(no_tick)
    note("evaluation")
    for _ in range(6):
        step()
    trainer._evaluate(no_tick)
    note("second epoch")
    if found:
        found["expected_gib"] = EXPECTED_GIB[one.architecture, one.dataset][one.precision != "fp32"]
        rest = found["replays"][0]
        passing = sum(found[phase][1] - rest for phase in ("steps as written", "evaluation"))
        facts = DATASETS[one.dataset]
        more = facts.train_samples + facts.val_samples - len(trainer.train.labels) - len(trainer.val.labels)
        found["whole_gib"] = rest + passing + more * 3 * facts.image_size**2 / GIB
    return found


if __name__ == "__main__":
    print(json.dumps(hold(Combination(*sys.argv[2:]), Setting.from_json(sys.argv[1]))))

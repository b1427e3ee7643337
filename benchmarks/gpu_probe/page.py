"""The answers as a Markdown page: a pure function. Parts without answers have no section; problems are shown."""

from collections.abc import Callable
from typing import Any

from benchmarks.report import table

Found = dict[str, Any]
KEPT = ("begun", "steps as written", "replays", "evaluation", "second epoch")


def page(answers: Found) -> str:
    """Format a section for every part that was measured."""
    sections: list[tuple[str, str, Callable[[Found], str]]] = [
        ("machine", "The machine", _machine),
        ("tests", "The tests that need a GPU", _tests),
        ("end-to-end", "Whole runs, and runs that were ended and went on", _runs),
        ("repeats", "The same run twice in one process", _repeats),
        ("curves", "GPU and CPU, number formats", _curves),
        ("inside", "Inside a step", _inside),
        ("variants", "Other choices for the recorded step", _variants),
        ("memory", "GPU memory", _memory),
        ("shared", "Several runs on the GPU", _shared),
        ("out-of-memory", "A run that is too large", _faults),
        ("bad-label", "A label that names no class", _faults),
    ]
    parts = ["# What a GPU does with the trainer"]
    for name, title, write in sections:
        found = answers.get(name, {}).get("found")
        problem = answers.get(name, {}).get("problem")
        if found:
            parts.append(f"## {title}\n\n{write(found)}")
        if problem:
            parts.append(f"**{title}: {problem.strip().splitlines()[-1]}**")
    return "\n\n".join(parts) + "\n"


def _machine(found: Found) -> str:
    machine, gpu, peaks = found["machine"], found.get("gpu"), found["peaks"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB of memory; Python"]
    lines[0] += f" {machine['python']}, torch {machine['torch']}, cuDNN {machine['cudnn']}."
    if gpu:
        driver = gpu["state"].get("driver_version", "?")
        lines.append(f"{gpu['name']} ({gpu['capability']}), {gpu['memory_gib']} GiB, driver {driver}.")
    products = ", ".join(f"{name} {peaks[name]:,.0f}" for name in ("fp32", "tf32", "bf16", "fp16"))
    lines.append(
        f"Square matrix products, TFLOP/s: {products}. A copy, read and written: {peaks['copy_tb_s']:.2f} TB/s."
    )
    return "\n".join(lines)


def _tests(found: Found) -> str:
    return "\n".join(f"- {line}" for line in found["outcomes"])


def _runs(found: Found) -> str:
    rows = []
    for name, ways in found.items():
        for way, one in ways.items():
            if "problem" in one:
                rows.append([name, way, one["problem"], "", "", ""])
                continue
            most = one.get("most", {})
            parts = " + ".join(f"{begin}–{end}" for begin, end in one.get("attempts", []))
            rows.append(
                [name, way, parts, _yes(not one["not_recorded"]), _yes(one["equal"]), _small(most, "train_loss")]
            )
    header = ["Run", "Way", "Epochs", "Recorded", "Equal to the first", "Training loss apart"]
    return table(header, rows, 5)


def _repeats(found: Found) -> str:
    rows = [
        [name, way, _yes(one["replayed"]), _yes(one["twice"]["equal"]), _yes(one["beside recorded"]["equal"])]
        for name, ways in found.items()
        for way, one in ways.items()
        if isinstance(one, dict) and "twice" in one
    ]
    return table(["Run", "Way", "Replayed", "Twice the same", "As recorded"], rows, 5)


def _curves(found: Found) -> str:
    first = next(iter(found.values()))["train_loss"]
    rows = [
        [name, *(f"{mine - theirs:+.4f}" for mine, theirs in zip(curve["train_loss"], first, strict=True))]
        for name, curve in found.items()
    ]
    rows[0] = [f"{next(iter(found))}: loss", *(f"{loss:.4f}" for loss in first)]
    return table(["Training loss, less the first's", *(str(epoch) for epoch in range(len(first)))], rows, 1)


def _inside(found: Found) -> str:
    rows, longest = [], []
    for name, looks in found.items():
        written, recorded = looks["as written"], looks["recorded"]
        step = recorded["step"]
        busy = step["kernel_ms"] / recorded["step_ms"] if recorded["step_ms"] else 0
        evaluated = written["evaluations"].get("2500", {}).get("ms", 0.0)
        cells = [written.get("step_ms"), recorded["step_ms"], step["kernel_ms"], evaluated]
        times = (f"{cell:.2f}" if cell else "–" for cell in cells)
        rows.append([name, f"{step['kernels']:.0f}", *times, f"{100 * busy:.0f} %"])
        longest.append(
            f"- {name}: " + "; ".join(f"{_kernel(k)} ×{n:.0f} {ms:.2f} ms" for k, n, ms in step["longest"][:4])
        )
    header = ["Run", "Kernels a step", "As written: ms", "Recorded: ms", "Its kernels: ms", "Evaluation: ms", "Busy"]
    return table(header, rows, 1) + "\n\nThe longest kernels of a step:\n\n" + "\n".join(longest)


def _variants(found: Found) -> str:
    names = list(dict.fromkeys(name for times in found.values() for name in times))
    rows = [[run, *(f"{times[name]:.2f}" if name in times else "–" for name in names)] for run, times in found.items()]
    return table(["Milliseconds a step", *names], rows, 1)


def _memory(found: Found) -> str:
    rows = [
        [run, *(f"{phases[phase][1]:.2f} / {phases[phase][2]:.2f}" for phase in KEPT)]
        for run, phases in found.items()
        if "begun" in phases
    ]
    return table(["GiB: most allocated / held after", *KEPT], rows, 1)


def _shared(found: Found) -> str:
    rows = []
    for name, one in found.items():
        if "problem" in one:
            rows.append([name, one["problem"], ""])
            continue
        alone = found[f"{name.split()[0]} 1 in turn"]["images_per_second"]
        rows.append([name, f"{one['images_per_second']:,.0f}", f"{one['images_per_second'] / alone:.2f}"])
    return table(["Network, runs, how", "Together: images/s", "Against one"], rows, 1)


def _faults(found: Found) -> str:
    rows = [
        [bundle, run, one["state"], one.get("cause", ""), one.get("message", "").partition("\n")[0][:90]]
        for bundle, whole in found.items()
        for run, one in whole["runs"].items()
    ]
    return table(["Bundle", "Run", "State", "Cause", "Message"], rows, 5)


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[value]


def _small(values: Found, name: str) -> str:
    return f"{values[name]:.1e}" if values.get(name) else "0"


def _kernel(name: str) -> str:
    """Shorten a kernel's name to its informative part."""
    plain = name.removeprefix("void ").replace("at::native::", "").replace("(anonymous namespace)::", "")
    return "`" + plain.partition("<")[0][:60] + "`"

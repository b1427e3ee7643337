"""The record as a Markdown page: a pure function. Parts that were not measured have no section, only a verdict."""

from collections.abc import Callable
from typing import TypeVar

from benchmarks.gpu_check.setting import GIB, Found
from benchmarks.gpu_check.verdicts import STUDY, results_of
from benchmarks.records import Results
from benchmarks.report import comparison, details, hours, how, table
from sweep.config.load import load_sweep

T = TypeVar("T")
TOTALS = ("whole_gib", "expected_gib")
PHASES = ("begun", "trial", "steps as written", "replays", "evaluation", "second epoch")


def page(record: Found) -> str:
    """Format a section for every part that was measured, then all verdicts and the hours of the sweep."""
    parts = record["parts"]
    machine = parts["machine"].get("found", {})
    sections: list[tuple[str, str, Callable[[Found], str]]] = [
        ("machine", "The machine", _machine),
        ("smoke", "Whole runs: recorded, as written, killed and resumed", _runs),
        ("memory", "GPU memory", _memory),
        ("bad-label", "A label that names no class", _faults),
        ("out-of-memory", "A run that finds the card full", _faults),
        ("curves", "Beside the CPU", _curves),
        ("tests", "The tests that need a GPU", _tests),
        ("profile", "Inside a step", lambda found: _inside(found, machine)),
        ("shared", "Several runs on the card", _shared),
    ]
    title = "Rehearsal of the check" if record["rehearsal"] else "The check"
    lines = [f"# {title} on a GPU", f"{record['date']}, drawn images, n = 1."]
    for name, heading, write in sections:
        body = _body(write, parts.get(name, {}).get("found"))
        lines += [f"## {heading}", body] if body else []
    results = results_of(record)
    lines += ["## Speed beside Lightning", _body(_speeds, results)] if results else []
    rows = [[name, one["verdict"], one["why"], f"{one.get('seconds', 0):.0f}"] for name, one in parts.items()]
    lines += ["## Verdicts", table(["Part", "Verdict", "Why", "Seconds"], rows, 3)]
    lines += [hours(results, load_sweep(STUDY).runs)] if results else []
    return "\n\n".join(filter(None, lines)) + "\n"


def _body(write: Callable[[T], str], found: T | None) -> str:
    """Format what was found, if anything; what is not as it should be must not cost the page of the rest."""
    try:
        return write(found) if found else ""
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"Not as it should be ({error!r}); the numbers are in the JSON file."


def _speeds(results: Results) -> str:
    return "\n\n".join(filter(None, (comparison(results), details(results), how(results))))


def _machine(found: Found) -> str:
    machine, gpu, peaks = found["machine"], found.get("gpu"), found.get("peaks", {})
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items() if version)
    memory = f"{machine['memory_bytes'] / GIB:.0f} GiB of memory"
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {memory}; {versions}; commit {machine['commit']}."]
    if gpu:
        state = ", ".join(f"{name} {value}" for name, value in gpu["state"].items())
        lines.append(f"{gpu['name']} ({gpu['capability']}), {gpu['memory_gib']} GiB, {state}.")
        lines.append(f"Kernels for {', '.join(gpu['kernels_for'])}. A context takes {gpu['context_gib']} GiB.")
    if peaks:
        products = ", ".join(f"{name} {value:,.1f}" for name, value in peaks.items() if name != "copy")
        copy = f"A copy, read and written: {peaks['copy']:.2f} TB/s."
        lines.append(f"Square matrix products, TFLOP/s: {products}. {copy}")
    return "\n".join(lines)


def _runs(found: Found) -> str:
    rows = []
    for name, ways in found.items():
        for way, one in ways.items():
            attempts = " + ".join(f"{begin}–{end}" for begin, end in one.get("attempts", []))
            same = {True: "yes", False: "no", None: "–"}[one["equal"]]
            rows.append([name, way, attempts, same, f"{one.get('apart', 0):.1e}", f"{one.get('wall_s', 0):.1f}"])
    header = ["Run", "Way", "Epochs", "Equal to the recorded", "Training loss apart", "Seconds, several at once"]
    return table(header, rows, 4)


def _memory(found: Found) -> str:
    rows = [
        [
            name,
            *(f"{one[phase][1]:.2f} / {one[phase][2]:.2f}" for phase in PHASES),
            *(f"{one[key]:.1f}" for key in TOTALS),
        ]
        for name, one in found.items()
        if "whole_gib" in one
    ]
    words = "GiB of a process of its own: most allocated / held after each phase; the whole, less what is held unused."
    return words + "\n\n" + table(["Run", *PHASES, "Whole, with all images", "Expected"], rows, 1) if rows else ""


def _faults(found: Found) -> str:
    rows = [
        [bundle, run, one["state"], one.get("cause", ""), one.get("message", "").partition("\n")[0][:90]]
        for bundle, whole in found.items()
        for run, one in whole["runs"].items()
    ]
    return table(["Bundle", "Run", "State", "Cause", "Message"], rows, 5)


def _curves(found: Found) -> str:
    (first, reference), *others = ((name, curve["train_loss"]) for name, curve in found.items())
    rows = [[first, *(f"{loss:.4f}" for loss in reference)]]
    rows += [[name, *(f"{a - b:+.4f}" for a, b in zip(losses, reference, strict=True))] for name, losses in others]
    header = ["ResNet-18's training loss; the others less the first's", *map(str, range(len(reference)))]
    return table(header, rows, 1)


def _tests(found: Found) -> str:
    return "\n".join(f"- {line}" for line in found.get("outcomes", []))


def _inside(found: Found, machine: Found) -> str:
    rows = []
    for name, one in found.items():
        speed = one["traffic_gb"] / one["step_ms"]  # TB/s
        gaps = one["step_ms"] - one["kernel_ms"]
        times = (one["eager_ms"], one["step_ms"], one["kernel_ms"], gaps, one["evaluation_ms"])
        share = 100 * speed / machine["peaks"]["copy"]
        cells = [f"{one['kernels']:.0f}", *(f"{time:.2f}" for time in times)]
        rows.append([name, *cells, f"{one['traffic_gb']:.2f}", f"{speed:.2f}", f"{share:.0f} %"])
    header = ["Run", "Kernels a step", "As written: ms", "Recorded: ms", "Its kernels: ms", "Gaps: ms"]
    header += ["Evaluation: ms", "Operands: GB", "TB/s", "Share of a copy's"]
    words = "Operands are what the operations of a step read and write, each once, whether from memory or a cache."
    tables = [table(header, rows, 1)]
    for name, one in found.items():
        rows = [[f"`{_kernel(kernel)}`", f"{count:.0f}", f"{ms:.3f}"] for kernel, count, ms in one["longest"]]
        tables.append(table([f"{name}: the longest of a step", "Number", "ms"], rows, 1))
    return "\n\n".join([words, *tables])


def _shared(found: Found) -> str:
    rows = []
    for name, one in found.items():
        alone = found.get(f"{name.split()[0]} 1 in turn", {})
        if "images_per_second" in one and "images_per_second" in alone:
            against = one["images_per_second"] / alone["images_per_second"]
            rows.append([name, f"{one['images_per_second']:,.0f}", f"{against:.2f}", f"{one['memory_gib']:.2f}"])
    return table(["Network, runs, how", "Together: images/s", "Against one", "Held together: GiB"], rows, 1)


def _kernel(name: str) -> str:
    """Shorten a kernel's name to its informative part."""
    return name.removeprefix("void ").replace("at::native::", "").replace("(anonymous namespace)::", "")[:70]

"""Whether a part answered what was expected: ok, differs, failed or not measured. Pure.

The expectations are of before a card had run the trainer.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from benchmarks.gpu_check.setting import Found
from benchmarks.launch import REPOSITORY
from benchmarks.records import OURS, Machine, Results, Sample
from benchmarks.summary import projected_hours
from sweep.config.load import load_sweep
from sweep.config.operations import device_kind

STUDY = REPOSITORY / "configs" / "thesis.yaml"
TOLERANCE = 0.15
# Of the 156 runs on one card, from the bytes and operations of their steps.
EXPECTED_HOURS: dict[tuple[str | None, str], tuple[float, float]] = {
    ("h100", "bf16"): (2.0, 2.4),
    ("h100", "fp32"): (6.0, 6.5),
    ("v100", "fp16"): (7.0, 8.0),
    ("v100", "fp32"): (23.0, 23.0),
    ("p100", "fp32"): (38.0, 38.0),
}
# Rounding grows from step to step, whatever made it: two of the CPU's own curves, whose sums differ in order alone, are
# some distance apart after 12 epochs, and a card's may be this many times that from them.
APART = 3.0


class Verdict(NamedTuple):
    """why: what was found instead; empty if ok."""

    verdict: Literal["ok", "differs", "failed", "not measured"]
    why: str = ""


def judge(name: str, answer: Found) -> Verdict:
    """Judge a part by what it answered."""
    found = answer.get("found", {})
    failures = [answer["problem"].strip().splitlines()[-1]] if "problem" in answer else list(_problems(found))
    if failures:
        return Verdict("failed", "; ".join(failures))
    differences = JUDGES[name](found) if name in JUDGES else []
    if differences:
        return Verdict("differs", "; ".join(differences))
    left_out = answer.get("ended") or found.get("missing")
    return Verdict("not measured", f"not all of it: {left_out}") if left_out else Verdict("ok")


def results_of(record: Found) -> Results | None:
    """Collect the speeds of the parts as a benchmark's results; None if there are none."""
    found = [record["parts"].get(name, {}).get("found", {}) for name in ("speeds", "other-speeds")]
    samples = [sample for one in found for sample in one.get("samples", [])]
    if not samples:
        return None
    return Results(
        date=record["date"],
        quick=False,
        machine=Machine(**record["parts"]["machine"]["found"]["machine"]),
        busy_cores=0.0,
        images={sample["shape"]["architecture"]: sample["measurement"]["validated"] for sample in samples},
        epochs=len(samples[0]["measurement"]["train_seconds"]),
        search=[Sample(**sample) for one in found for sample in one.get("search", [])],
        samples=[Sample(**sample) for sample in samples],
        growth=[],
    )


def _problems(found: Found, where: str = "") -> Iterator[str]:
    if "problem" in found:
        yield f"{where}: {found['problem'].strip().splitlines()[-1]}"
        return
    for key, one in found.items():
        if isinstance(one, dict):
            yield from _problems(one, f"{where} {key}".strip())


def _runs(found: Found) -> list[str]:
    """Check that every run was recorded, where it should be, resumed and equals the recorded one."""
    words = []
    for combination, ways in found.items():
        for way, one in ways.items():
            if one["equal"] is False:
                words.append(f"{combination}, {way}: another history, from epoch {one['equal_epochs']}")
            if one["not_recorded"]:
                words.append(f"{combination}, {way}: its step could not be recorded")
            if way == "killed" and not one["attempts"][-1][0]:
                words.append(f"{combination}, {way}: it was not resumed")
    return words


def _memory(found: Found) -> list[str]:
    return [
        f"{combination}: {one['whole_gib']:.1f} GiB, not {one['expected_gib']:.1f}"
        for combination, one in found.items()
        if "whole_gib" in one and abs(one["whole_gib"] / one["expected_gib"] - 1) > TOLERANCE
    ]


def _faults(found: Found) -> list[str]:
    words = []
    for bundle, one in found.items():
        states = [(run["state"], run.get("cause", "")) for run in one["runs"].values()]
        expected = [("done", ""), ("failed", one["expected"]), ("done", "")]
        if states != expected:
            words.append(f"{bundle}: {', '.join(' '.join(filter(None, state)) for state in states)}")
    return words


def _curves(found: Found) -> list[str]:
    def apart(mine: Found, theirs: Found) -> float:
        losses = [pair for key in ("train_loss", "val_loss") for pair in zip(mine[key], theirs[key], strict=True)]
        return float(max(abs(a - b) for a, b in losses))

    cpu, other = found.get("cpu fp32"), found.get("cpu fp32, other threads")
    if not cpu or not other:
        return []
    most = APART * apart(cpu, other)
    distances = {key: apart(curve, cpu) for key, curve in found.items() if not key.startswith("cpu")}
    return [f"{key}: {value:.4f} from the CPU's losses" for key, value in distances.items() if value > most]


def _tests(found: Found) -> list[str]:
    return [line for line in found.get("outcomes", []) if line.startswith(("FAILED", "ERROR"))]


def _profile(found: Found) -> list[str]:
    return [f"{key}: its step was not recorded" for key, one in found.items() if not one["recorded"]]


def _speeds(found: Found) -> list[str]:
    samples = [Sample(**one) for one in found.get("samples", [])]
    kind = device_kind(samples[0].measurement.gpu) if samples else None
    words = []
    for (program, precision), hours in projected_hours(samples, load_sweep(STUDY).runs).items():
        least, most = EXPECTED_HOURS.get((kind.name if kind else None, precision), (hours, hours))
        if program == OURS and not least * (1 - TOLERANCE) <= hours <= most * (1 + TOLERANCE):
            words.append(f"{precision}: {hours:.1f} h for the sweep, not {least:g} to {most:g} h")
    return words


JUDGES: dict[str, Callable[[Found], list[str]]] = {
    "smoke": _runs,
    "memory": _memory,
    "bad-label": _faults,
    "curves": _curves,
    "tests": _tests,
    "speeds": _speeds,
    "out-of-memory": _faults,
    "profile": _profile,
    "other-speeds": _speeds,
}

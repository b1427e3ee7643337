"""What the doctor says of one thing. Pure."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from slurm.probe import Findings
from trainer.records.kernels import has_kernels, torch_for


class Verdict(str, Enum):
    """What became of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


class Check(NamedTuple):
    """What was looked at and what was found. remedy: what to do or type, of every warning and problem."""

    name: str
    state: Verdict
    words: str
    remedy: str | None = None

    def line(self) -> str:
        """One line of text."""
        return f"{self.state.value} {self.name}: {self.words}" + (f"; {self.remedy}" if self.remedy else "")


def kernels(name: str, findings: Findings, capability: str, device: str) -> Check:
    if has_kernels(findings.archs, capability):
        return Check(name, Verdict.OK, f"torch {findings.torch} has kernels for {device} ({capability})")
    words = f"torch {findings.torch} has no kernels for {device} ({capability}), only for {listed(findings.archs)}"
    return Check(name, Verdict.PROBLEM, words, torch_for(capability))


def listed(archs: Sequence[str]) -> str:
    return ", ".join(archs) or "no GPU at all"

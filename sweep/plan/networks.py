"""What networks by reference are and cost: asked of a process that imports them, and kept under the user's cache.

Of a network whose files are as they were nothing is asked again. What is kept may be deleted at any time.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from slurm.code import freeze
from sweep.config.grid import place_of
from sweep.config.own_code import is_installed, own_code
from sweep.config.placement import dataset_facts
from sweep.config.schema import Sweep
from sweep.config.yaml_file import read_yaml
from sweep.errors import InputError, MachineError
from sweep.words import last_line
from trainer.models.catalog import Architecture, facts, is_reference
from trainer.models.measured import Asked, Measured
from trainer.records.code import ROOT
from trainer.records.files import write_atomic

ANSWER_S = 300  # importing torch from a slow file server, and a network of many layers


def with_networks(sweep: Sweep, say: Callable[[str], None]) -> Sweep:
    """The sweep with what its networks by reference are; nothing is asked where there is none.

    say: told what takes some seconds. Raises InputError for a network that is not there or cannot be trained, with its
    line in the sweep file, and MachineError.
    """
    modules = own_code(sweep)
    asked = _questions(sweep)
    if not asked:
        return sweep
    absent = [one for one in asked if not _is_here(one.architecture, modules)]
    if absent:  # its jobs run in a container
        say(f"not measured, for torch or the network's module is not installed here: {_names(absent)}")
        asked = [one for one in asked if one not in absent]
    places = _places(asked, modules)
    known = {one: _kept(path) for one, path in places.items()}
    unknown = [one for one, answer in known.items() if answer is None]
    if unknown:
        say(f"measuring {_names(unknown)}")
        for one, answer in zip(unknown, _ask(unknown, modules), strict=True):
            if answer.problem:
                images = f"with images of {one.image_size}×{one.image_size} and {one.classes} classes"
                source = read_yaml(sweep.file)
                words = f"'grid.architecture' holds '{one.architecture}', which cannot be trained {images}"
                raise source.error(place_of(source, "architecture", one.architecture), f"{words}: {answer.problem}")
            known[one] = answer
            _keep(places[one], answer)
    networks = {}
    for architecture in dict.fromkeys(one.architecture for one in asked):
        sizes = {one.image_size: answer for one, answer in known.items() if one.architecture == architecture and answer}
        networks[architecture] = _architecture(architecture, sizes)
    return sweep._replace(networks=networks)


def _questions(sweep: Sweep) -> list[Asked]:
    """One for each network by reference and dataset."""
    found: dict[tuple[str, str], Asked] = {}
    for placed in sweep.runs:
        run = placed.spec.run
        if is_reference(run.architecture) and (run.architecture, run.dataset) not in found:
            classes = dataset_facts(run.dataset, sweep.data).classes
            asked = Asked(run.architecture, classes, placed.image_size, placed.spec.training.dropout)
            found[run.architecture, run.dataset] = asked
    return list(found.values())


def _is_here(architecture: str, modules: Sequence[Path]) -> bool:
    """Whether a network can be imported here: torch is installed, and its module is the user's own or installed."""
    top = architecture.partition(":")[0].partition(".")[0]
    own = any(module.stem == top for module in modules)
    return is_installed("torch") and (own or is_installed(top))


def _names(asked: Sequence[Asked]) -> str:
    return ", ".join(dict.fromkeys(one.architecture for one in asked))


def _ask(asked: Sequence[Asked], modules: Sequence[Path]) -> list[Measured]:
    """Have a process import and call the networks."""
    told = {
        "paths": list(dict.fromkeys(str(module.parent) for module in modules)),
        "asked": [one._asdict() for one in asked],
    }
    names = _names(asked)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "trainer.models.measure"],
            cwd=ROOT,
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
        )
    except OSError as error:
        raise MachineError(f"{names}: could not be measured: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{names}: not measured within {ANSWER_S} s; does the module train as it is imported?"
        ) from error
    if done.returncode:
        words = last_line(done.stderr) or f"exit code {done.returncode}"
        raise InputError(f"{names}: the process that imported it ended: {words}")
    # Before its answer a module may have printed past Python.
    return [Measured(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def _places(asked: Sequence[Asked], modules: Sequence[Path]) -> dict[Asked, Path]:
    """Where each answer is kept: under a name made of the question, the user's code, and torch's version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    code = freeze(own=modules).record.snapshot
    places = {}
    for one in asked:
        name = hashlib.sha256(json.dumps([one, code, metadata.version("torch")]).encode()).hexdigest()[:32]
        places[one] = cache / "sweep" / "networks" / f"{name}.json"
    return places


def _kept(path: Path) -> Measured | None:
    try:
        return Measured(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path, answer: Measured) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(answer._asdict()).encode())
    except OSError:
        """A home that cannot be written: it is measured again the next time."""


def _architecture(name: str, sizes: Mapping[int, Measured]) -> Architecture:
    """What was measured, as the estimates ask for it: at the sizes of the sweep's images, or by area at others."""

    def at(size: int, field: str) -> float:
        nearest = min(sizes, key=lambda known: abs(known - size))
        return float(getattr(sizes[nearest], field) * (size / nearest) ** 2)

    return replace(
        facts(name),
        forward_macs=lambda size: at(size, "forward_macs"),
        parameters=max(answer.parameters for answer in sizes.values()),
        step_bytes=lambda size: at(size, "step_bytes"),
        evaluation_bytes=lambda size: at(size, "evaluation_bytes"),
    )

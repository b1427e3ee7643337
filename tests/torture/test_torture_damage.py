"""Every file of a run damaged in every way: the run goes on to the same result, or says which file keeps it."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import LONG_S, TRAINING, Command, program, wait_for
from networks import REFERENCE
from torture_fixtures import Torture
from torture_runs import Trainers, arguments, outcome
from upkeep_fixtures import TOKEN, Study, study

from trainer.checkpoint import tensors as checkpoint
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.base import Versioned, now
from trainer.records.checkpoint_file import list_checkpoints
from trainer.records.files import read_json, write_json
from trainer.records.recipe import Recipe
from trainer.records.result import Result
from trainer.records.run import Commitment, RunFolder
from trainer.records.status import ErrorRecord, Progress

__all__ = ["study"]

SEED = 5
EPOCHS = 5
OTHER = Recipe(epochs=EPOCHS, batch_size=4, lr_milestones=(3,), dropout=0.5)
NEWEST, OLDER, BOTH = "newest checkpoint", "older checkpoint", "both checkpoints"
RECORDS = ("run.json", "progress.json", "error.json", "attempts/0001.json", "result.json")
KINDS = (*RECORDS, NEWEST, OLDER, BOTH)
# One process for all the cases, so that torch is imported once. What its claims call silence is made short.
CHILD = """
import json, os, sys
from trainer.records import claim
from trainer.__main__ import main
claim.SILENCE_S = 0.2
for line in sys.stdin:
    call = json.loads(line)
    os.dup2(os.open(call["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    print(json.dumps(main(call["words"])), flush=True)
"""


class Run:
    """A run that was killed after its fourth epoch of five, and copies of it to damage."""

    def __init__(self, template: Path, reference: str) -> None:
        self.template = template
        self.reference = reference

    def copy(self, folder: Path, *, done: bool) -> RunFolder:
        """Return a copy of its own, its checkpoints by links; with a result like the reference's if asked for."""
        shutil.copytree(self.template, folder, copy_function=_link_or_copy)
        if done:
            shutil.copy(self.template.with_name("done") / "run" / "result.json", folder / "result.json")
        return RunFolder(folder)


def _link_or_copy(source: str, target: str) -> None:
    (os.link if source.endswith(".safetensors") else shutil.copy)(source, target)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The killed run, its heartbeat and its attempt an hour old, as if its owner were long gone."""
    folder = tmp_path_factory.mktemp("damaged")
    call = (*arguments(data, REFERENCE, EPOCHS), "--checkpoint-interval", 0)
    with Trainers() as trainers:
        reference = trainers.uninterrupted(folder / "done" / "run", call)
        cut = RunFolder(folder / "run")
        process = trainers.start(cut.path, call)
        wait_for(lambda: any("000004" in path.name for path in list_checkpoints(cut.checkpoints)), "the fourth epoch")
        process.kill()
        process.wait()
    for third in list_checkpoints(cut.checkpoints)[2:]:  # killed before it went
        third.unlink()
    assert not cut.result.exists()
    ago = now() - timedelta(hours=1)
    progress, attempt = read_json(cut.progress, Progress), read_json(cut.attempt(1), AttemptRecord)
    assert progress is not None
    assert attempt is not None
    write_json(cut.progress, progress.model_copy(update={"heartbeat": ago, "started": ago}))
    write_json(cut.attempt(1), attempt.model_copy(update={"started": ago}))
    write_json(
        cut.error,
        ErrorRecord(
            run_id="run",
            cause=Cause.EXCEPTION,
            exception="ValueError",
            message="earlier",
            traceback="",
            attempt=1,
            job=attempt.job,
            host=attempt.host,
            log=attempt.log,
            time=ago,
        ),
    )
    return Run(cut.path, reference)


class Child:
    """`python -m trainer`, called again and again in one process that file permissions bind, root or not."""

    def __init__(self, folder: Path) -> None:
        bound = []
        if os.geteuid() == 0:
            dropped = "-dac_override,-dac_read_search"
            bound = [program("setpriv", "util-linux"), f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
        self.folder = folder
        self.process = subprocess.Popen(
            [*bound, sys.executable, "-c", CHILD],
            cwd=folder,
            env=TRAINING,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def call(self, words: list[str], said: Path) -> int:
        """Make one call; give its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"words": words, "said": str(said)}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the process died\n{said.read_text()}"
        return int(json.loads(answer))

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate(timeout=LONG_S)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """A child process for the cases of a test."""
    found = Child(tmp_path)
    yield found
    found.end()


def _paths(folder: RunFolder, kind: str) -> list[Path]:
    newest_first = list_checkpoints(folder.checkpoints)
    chosen = {NEWEST: newest_first[:1], OLDER: newest_first[1:], BOTH: newest_first}
    return chosen[kind] if kind in chosen else [folder.path / kind]


def truncated(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size * 3 // 5]


def empty(path: Path) -> bytes:
    return b""


def with_a_flipped_bit(path: Path) -> bytes:
    """Flip a bit in the middle: in JSON within a number where there is one, so that it may still be JSON."""
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    if path.suffix == ".json":
        at = next((here for here in range(at, len(content)) if chr(content[here]).isdigit()), at)
    content[at] ^= 1
    return bytes(content)


def of_a_newer_schema(path: Path) -> bytes:
    if path.suffix == ".json":
        document = {**json.loads(path.read_text()), "schema_version": 99}
        del document["sha256"]
        return json.dumps(document).encode()
    found = checkpoint.load(path)
    described = found.info.model_dump_json().replace('"schema_version":2', '"schema_version":99', 1)
    metadata = {"sweep": described, "sha256": checkpoint._digest(described, found.tensors)}
    return checkpoint.safetensors.torch.save(found.tensors, metadata)


def of_another_recipe(path: Path) -> bytes:
    """What a run with another dropout would have written here."""
    if path.suffix == ".safetensors":
        found = checkpoint.load(path)
        of = found.info.commitment.model_copy(update={"training": OTHER})
        described = found.info.model_copy(update={"commitment": of}).model_dump_json()
        metadata = {"sweep": described, "sha256": checkpoint._digest(described, found.tensors)}
        return checkpoint.safetensors.torch.save(found.tensors, metadata)
    schemas: dict[str, type[Versioned]] = {"run.json": Commitment, "result.json": Result, "error.json": ErrorRecord}
    schemas |= {"progress.json": Progress, "0001.json": AttemptRecord}
    record = read_json(path, schemas[path.name])
    assert record is not None
    changes: dict[str, object] = {"run_id": "another"}
    if isinstance(record, (Commitment, Result)):
        changes = {"training": OTHER}
    if isinstance(record, Result):
        changes["training_hash"] = OTHER.hash
    copy = path.with_name("another")
    write_json(copy, record.model_copy(update=changes))
    content = copy.read_bytes()
    copy.unlink()
    return content


def not_json(path: Path) -> bytes:
    return b"\x80\x04\x95not what it was" * 9


DAMAGES: tuple[Callable[[Path], bytes], ...] = (
    truncated,
    empty,
    with_a_flipped_bit,
    of_a_newer_schema,
    of_another_recipe,
    not_json,
)
FORBIDDEN = "permission denied"
CASES = [(kind, damage) for kind in KINDS for damage in (*DAMAGES, FORBIDDEN)]


def damage_it(folder: RunFolder, kind: str, damage: Callable[[Path], bytes] | str) -> None:
    """Do it; a linked file is replaced, never written into."""
    for path in _paths(folder, kind):
        if isinstance(damage, str):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            path.chmod(0)
        else:
            content = damage(path)
            path.unlink()
            path.write_bytes(content)


def test_every_damaged_file_has_a_clear_outcome_and_none_a_wrong_result(
    run: Run, child: Child, data: Path, tmp_path: Path, torture: Torture
) -> None:
    """Kind × damage: it goes on at once, or names the file and goes on without it; always to the same result."""
    chosen = random.Random(SEED).sample(CASES, torture.count(14, len(CASES)))
    outcomes: Counter[str] = Counter()
    for number, (kind, damage) in enumerate(chosen):
        name = f"{kind}, {damage if isinstance(damage, str) else damage.__name__.replace('_', ' ')}"
        folder = run.copy(tmp_path / str(number) / "run", done=kind == "result.json")
        damage_it(folder, kind, damage)
        concerned = _paths(folder, kind)
        words = [str(word) for word in (*arguments(data, REFERENCE, EPOCHS), "--output", folder.path)]
        said = tmp_path / f"{number}.said"
        refused = 0
        while (code := child.call(words, said)) != 0:
            told = said.read_text().splitlines()[-1]
            named = [path for path in concerned if path.exists() and (path.name in told or "holds a run with" in told)]
            assert named, f"{name}: exit {code}, and no file is named: {told}"
            named[0].rename(tmp_path / f"{number}-{refused}")
            refused += 1
            assert refused <= len(concerned), f"{name}: does not go on without the file it named\n{said.read_text()}"
        text = said.read_text()
        assert "Traceback" not in text, f"{name}\n{text}"
        assert outcome(folder.path) == run.reference, name
        if "checkpoint" in kind and not refused:
            notes = read_json(folder.progress, Progress)
            assert notes is not None
            passed_over = kind != OLDER
            assert any("passed over" in note for note in notes.notes) == passed_over, f"{name}: {notes.notes}"
        outcomes["refused by name, then went on" if refused else "went on"] += 1
        shutil.rmtree(folder.path.parent)
    counted = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    torture.say(
        f"{outcomes.total()}/{len(chosen)} damaged files had a clear outcome ({counted}), 0 tracebacks, "
        f"0 wrong results (seed {SEED})"
    )


SHOWN: dict[str, Callable[[Study], Path]] = {
    "plan.json": lambda study: study.folder.plan,
    "a submission": lambda study: study.folder.submission(TOKEN),
    "queue.json": lambda study: study.folder.queue,
    "run.json": lambda study: study.run(study.stopped).commitment,
    "progress.json": lambda study: study.run(study.stopped).progress,
    "an attempt": lambda study: study.run(study.stopped).attempt(1),
    "result.json": lambda study: study.run(study.done).result,
    "error.json": lambda study: study.run(study.failed).error,
    "cancel.json": lambda study: study.run(study.cancelled).cancel,
}


def test_status_never_shows_a_damaged_file_for_a_good_one(study: Study, sweep: Command, torture: Torture) -> None:
    """Every file that status reads, damaged in every way: it answers, or names the file in a sentence."""
    sound = {run["id"]: run["state"] for run in sweep.json("status", study.file)["runs"]}
    assert list(sound.values()) == ["done", "interrupted", "failed", "cancelled"]
    cases = [(kind, damage) for kind in SHOWN for damage in DAMAGES if damage is not of_another_recipe]
    chosen = random.Random(SEED).sample(cases, torture.count(6, len(cases)))
    outcomes: Counter[str] = Counter()
    for kind, damage in chosen:
        path = SHOWN[kind](study)
        content = path.read_bytes()
        path.write_bytes(damage(path))
        process = sweep.start("status", study.file, "--json")
        answer, said = process.communicate(timeout=LONG_S)
        path.write_bytes(content)
        name = f"{kind}, {damage.__name__}"
        assert "Traceback" not in said, f"{name}\n{said}"
        if process.returncode:
            assert path.name in said, f"{name}: exit {process.returncode} without the file's name: {said}"
        else:
            states = {run["id"]: run["state"] for run in json.loads(answer)["runs"]}
            differ = {run for run, state in states.items() if state != sound[run]}
            assert differ <= {path.relative_to(study.folder.runs).parts[0]} if "runs" in path.parts else not differ
            if kind == "result.json":
                assert states[study.done.run.id] == "failed", name
        outcomes["named" if process.returncode else "shown as what it is"] += 1
    counted = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    torture.say(f"{outcomes.total()}/{len(chosen)} damaged files in 'sweep status': {counted}, 0 tracebacks")

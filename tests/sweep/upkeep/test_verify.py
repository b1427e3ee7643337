"""`sweep verify`: every file that is damaged or out of place is named with a remedy, none is touched."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Command, wait_for
from permissions import permissions_kept
from result_fixtures import make_result, write_result
from upkeep_fixtures import DATA, TOKEN, Study, leave_unfinished, study, tree

from slurm.code import freeze, snapshot, store
from sweep.config.load import load_sweep
from sweep.status.bad_nodes import forget
from sweep.status.folder import SweepFolder
from sweep.upkeep.problems import Finding, Kind
from sweep.upkeep.run_files import last_word
from sweep.upkeep.verify import verify
from trainer.checkpoint import tensors as checkpoint
from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import ELEMENTS, CheckpointError, NewerCheckpointError, inspect, list_checkpoints
from trainer.records.files import from_json, read_json, write_json
from trainer.records.plan import PlanRecord
from trainer.records.process import Process, is_alive, this_process
from trainer.records.recipe import Recipe

__all__ = ["study"]

OTHER = Recipe(epochs=4, lr_milestones=(2,), dropout=0.1)

FILES: dict[str, Callable[[Study], Path]] = {
    "plan": lambda study: study.folder.plan,
    "submission": lambda study: study.folder.submission(TOKEN),
    "bundle": lambda study: study.folder.jobs(TOKEN).bundle(),
    "queue": lambda study: study.folder.queue,
    "run": lambda study: study.run(study.stopped).commitment,
    "progress": lambda study: study.run(study.stopped).progress,
    "attempt": lambda study: study.run(study.stopped).attempt(1),
    "checkpoint": lambda study: study.run(study.stopped).checkpoints / "epoch-000002.safetensors",
    "result": lambda study: study.run(study.done).result,
    "error": lambda study: study.run(study.failed).error,
    "cancel": lambda study: study.run(study.cancelled).cancel,
    "run of a done run": lambda study: study.run(study.done).commitment,
    "progress of a done run": lambda study: study.run(study.done).progress,
}


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip_a_bit(path: Path) -> None:
    """In a checkpoint a bit of a weight; in JSON, which carries no checksum, one of the first key."""
    content = bytearray(path.read_bytes())
    content[-100 if path.suffix == ".safetensors" else content.index(b'"') + 3] ^= 1
    path.write_bytes(content)


def make_newer(path: Path) -> None:
    if path.suffix == ".safetensors":
        described = checkpoint.load(path).info.model_dump_json().replace('"schema_version":2', '"schema_version":9', 1)
        tensors = checkpoint.load(path).tensors
        metadata = {"sweep": described, "sha256": checkpoint._digest(described, tensors)}
        path.write_bytes(checkpoint.safetensors.torch.save(tensors, metadata))
    else:
        document = {**json.loads(path.read_text()), "schema_version": 9, "news": 1}
        del document["sha256"]
        path.write_text(json.dumps(document))


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, ""),
    "empty": (lambda path: os.truncate(path, 0), ""),
    "a bit": (flip_a_bit, ""),
    "newer schema": (make_newer, "is of schema 9"),
    "not JSON": (lambda path: path.write_bytes(b"\x80\x04 pickled?" * 9) and None, ""),
    "JSON of something else": (lambda path: path.write_text("[1, 2]") and None, ""),
    "may not be read": (lambda path: path.chmod(0), "may not be read"),
    "a folder": (put_a_folder, "is a folder, and a file should be there"),
    "a dead link": (put_a_dead_link, "is a link to nothing"),
}


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def looked(study: Study) -> list[Finding]:
    """Verify, and hold it to having changed nothing."""
    before = tree(study.path)
    found = verify(study.sweep)
    assert tree(study.path) == before
    return found


def test_a_healthy_sweep_has_no_findings(study: Study) -> None:
    """Done, interrupted, failed, cancelled runs, leftovers that may be in the making, outputs: all of it is well."""
    (study.path / "tables").mkdir()
    (study.path / "superseded" / f"{study.done.run.id}.20260101T120000000000").mkdir(parents=True)
    leave_unfinished(study.path, 1.0)
    forget(study.folder)
    assert looked(study) == []


def test_nothing_on_disk_is_no_damage(study: Study) -> None:
    """A sweep that was never submitted is well."""
    shutil.rmtree(study.path)
    assert verify(study.sweep) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", FILES)
def test_each_damaged_file_is_named_with_a_remedy(study: Study, kind: str, damage: str) -> None:
    """One finding: that file, what is wrong, what to do; nothing else is accused and nothing changed."""
    path = FILES[kind](study)
    act, words = DAMAGES[damage]
    act(path)
    before = tree(study.path)
    with permissions_kept():
        finding = only(verify(study.sweep))
    assert tree(study.path) == before
    assert finding.path == str(path.relative_to(study.path))
    assert finding.kind is Kind.DAMAGED
    assert words in finding.what
    assert finding.what
    if damage == "newer schema":
        assert "version of sweep" in finding.remedy
    elif damage == "may not be read":
        assert "chmod" in finding.remedy
    else:
        assert any(word in finding.remedy for word in ("move it", "removed", "remove it")), finding.remedy


@pytest.mark.parametrize(
    "name", ["runs", "submissions", "superseded", "run", "attempts", "checkpoints", "logs", "array"]
)
def test_a_file_in_a_folders_place_is_named(study: Study, name: str) -> None:
    """Wherever a folder should be; what can no longer be seen below it is not accused as well."""
    run = study.run(study.stopped)
    inside = {"run": run.path, "attempts": run.attempts, "checkpoints": run.checkpoints, "logs": run.logs}
    path = {**inside, "array": study.folder.jobs(TOKEN).array()}.get(name, study.path / name)
    shutil.rmtree(path, ignore_errors=True)
    path.write_text("")
    finding = only(looked(study))
    assert (finding.kind, finding.path) == (Kind.DAMAGED, str(path.relative_to(study.path)))
    assert finding.what == "is a file, and a folder should be there"


def put_result_of_another_run(study: Study) -> None:
    shutil.copy(study.run(study.done).result, study.run(study.stopped).result)


def put_result_of_another_run_and_recipe(study: Study) -> None:
    put_result_of_another_recipe(study)
    shutil.move(study.run(study.done).result, study.run(study.stopped).result)
    write_result(study.path, make_result(study.done))


def put_result_of_another_recipe(study: Study) -> None:
    changed = study.done.model_copy(update={"training": OTHER, "training_hash": OTHER.hash})
    write_result(study.path, make_result(changed))


def put_result_of_other_data(study: Study) -> None:
    result = make_result(study.done)
    write_result(
        study.path, result.model_copy(update={"data": result.data.model_copy(update={"fingerprint": "1" * 64})})
    )


def lose_an_attempt(study: Study) -> None:
    study.attempt(study.stopped, 3, outcome="interrupted")
    study.attempt(study.stopped, 2, outcome="interrupted")
    study.run(study.stopped).attempt(2).unlink()


def lose_the_commitment(study: Study) -> None:
    study.run(study.stopped).commitment.unlink()


def lose_the_result(study: Study) -> None:
    study.run(study.done).result.unlink()


def rename_a_checkpoint(study: Study) -> None:
    folder = study.run(study.stopped).checkpoints
    (folder / "epoch-000002.safetensors").rename(folder / "epoch-000003.safetensors")


def copy_an_attempt(study: Study) -> None:
    folder = study.run(study.stopped)
    shutil.copy(folder.attempt(1), folder.attempt(2))


STOPPED, DONE, FAILED = "resnet18-cifar10-r0.02-s43", "resnet18-cifar10-r0.02-s42", "resnet18-cifar10-r0.05-s42"
NEWEST = f"runs/{STOPPED}/checkpoints/epoch-000002.safetensors"

CONTRADICTIONS: dict[str, tuple[Callable[[Study], object], str, str, str]] = {
    "another run's result": (
        put_result_of_another_run,
        f"runs/{STOPPED}/result.json",
        f"is of {DONE}",
        "then 'sweep retry",
    ),
    "another run's result of another recipe": (
        put_result_of_another_run_and_recipe,
        f"runs/{STOPPED}/result.json",
        f"is of {DONE}",
        "then 'sweep retry",
    ),
    "another recipe's result": (
        put_result_of_another_recipe,
        f"runs/{DONE}/result.json",
        "is of another recipe than run.json",
        "find out",
    ),
    "another dataset's result": (
        put_result_of_other_data,
        f"runs/{DONE}/result.json",
        "is of another dataset than run.json",
        "find out",
    ),
    "another run's progress": (
        lambda study: study.progress(study.stopped, 2, run_id="x"),
        f"runs/{STOPPED}/progress.json",
        "is of x",
        "goes on from its checkpoint",
    ),
    "a later attempt's progress": (
        lambda study: study.progress(study.stopped, 2, attempt=2),
        f"runs/{STOPPED}/progress.json",
        "is of attempt 2, and the newest is 1",
        "goes on from its checkpoint",
    ),
    "another recipe's progress": (
        lambda study: study.progress(study.stopped, 2, epochs=9),
        f"runs/{STOPPED}/progress.json",
        "counts 9 epochs, run.json has 4",
        "goes on from its checkpoint",
    ),
    "another run's run.json": (
        lambda study: study.commit(study.failed, run=study.done.run),
        f"runs/{FAILED}/run.json",
        f"is of {DONE}",
        "trains it again",
    ),
    "another run's checkpoint": (
        lambda study: study.checkpoint(study.stopped, 2, run={"id": "x"}),
        NEWEST,
        "is of x",
        "move it out",
    ),
    "another recipe's checkpoint": (
        lambda study: study.checkpoint(study.stopped, 2, training=OTHER),
        NEWEST,
        "is of another recipe than run.json",
        "move it out",
    ),
    "another dataset's checkpoint": (
        lambda study: study.checkpoint(study.stopped, 2, data_fingerprint="1" * 64),
        NEWEST,
        "is of another dataset than run.json",
        "move it out",
    ),
    "a later attempt's checkpoint": (
        lambda study: study.checkpoint(study.stopped, 2, attempt=2),
        NEWEST,
        "is of attempt 2, and the newest is 1",
        "move it out",
    ),
    "a renamed checkpoint": (
        rename_a_checkpoint,
        f"runs/{STOPPED}/checkpoints/epoch-000003.safetensors",
        "holds 2 epochs",
        "move it out",
    ),
    "a hole in the attempts": (lose_an_attempt, f"runs/{STOPPED}/attempts", "lacks attempt 2 of 3", "restore"),
    "a copied attempt": (copy_an_attempt, f"runs/{STOPPED}/attempts/0002.json", "says that it is attempt 1", "move it"),
    "no run.json": (lose_the_commitment, f"runs/{STOPPED}/run.json", "is missing beside checkpoints", "writes it"),
    "the result gone": (lose_the_result, f"runs/{DONE}/result.json", "is gone, though attempt 1 ended well", "restore"),
    "an open attempt beside the result": (
        lambda study: study.attempt(study.done),
        f"runs/{DONE}/attempts/0001.json",
        "is open beside the run's result, and its process is gone",
        "nothing is lost",
    ),
    "another sweep's plan": (
        lambda study: write_json(
            study.folder.plan, read_json(study.folder.plan, PlanRecord).model_copy(update={"sweep": "other"})
        ),
        "plan.json",
        "is of the sweep 'other'",
        "sweep submit",
    ),
    "a renamed submission": (
        lambda study: shutil.copy(study.folder.submission(TOKEN), study.folder.submission("0a1b2c3d-0002")),
        "submissions/0a1b2c3d-0002.json",
        f"is the submission {TOKEN}",
        "once none of its jobs",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_does_not_fit_together_is_named(study: Study, case: str) -> None:
    """Files that are whole and contradict each other: one is named, with both sides and the way out."""
    act, path, what, remedy = CONTRADICTIONS[case]
    act(study)
    finding = only(looked(study))
    assert (finding.kind, finding.path, finding.what) == (Kind.INCONSISTENT, path, what)
    assert remedy in finding.remedy


ORPHANS: dict[str, Callable[[Study], Path]] = {
    "a run of no sweep": lambda study: study.folder.runs / "vit-cifar10-r0.5-s1" / "logs",
    "a folder": lambda study: study.path / "mine" / "deeper",
    "an entry of a run": lambda study: study.run(study.done).path / "wandb" / "x",
    "beside checkpoints": lambda study: study.run(study.stopped).checkpoints / "old" / "x",
    "beside attempts": lambda study: study.run(study.stopped).attempts / "1.json" / "x",
    "a submission's folder": lambda study: study.folder.submissions / "0a1b2c3d-0009" / "0",
    "in superseded": lambda study: study.path / "superseded" / "mine" / "x",
}


@pytest.mark.parametrize("case", ORPHANS)
def test_what_belongs_to_nothing_is_named(study: Study, case: str) -> None:
    """One finding for the entry, not for what is in it."""
    path = ORPHANS[case](study)
    path.mkdir(parents=True)
    finding = only(looked(study))
    assert (finding.kind, finding.path) == (Kind.ORPHANED, str(path.parent.relative_to(study.path)))
    assert "move it elsewhere" in finding.remedy


def test_what_a_killed_process_left_is_named(study: Study) -> None:
    """Its half-written file, and its attempt that nobody closed, with the command that goes on."""
    study.attempt(study.stopped)
    path = leave_unfinished(study.run(study.stopped).path, 120)
    by_path = {finding.path: finding for finding in looked(study)}
    assert {finding.kind for finding in by_path.values()} == {Kind.HALF_WRITTEN}
    assert set(by_path) == {f"runs/{STOPPED}/attempts/0001.json", str(path.relative_to(study.path))}
    assert "goes on from its checkpoint" in by_path[f"runs/{STOPPED}/attempts/0001.json"].remedy
    assert "sweep clean" in by_path[str(path.relative_to(study.path))].remedy


@pytest.mark.parametrize(
    "process", [this_process(), Process(host="another", pid=1, started=1.0)], ids=["here", "there"]
)
def test_what_a_living_process_has_open_is_no_damage(study: Study, process: Process) -> None:
    """An open attempt and a half-written file of a run that is, or could be, in work."""
    study.attempt(study.stopped, process=process)
    leave_unfinished(study.run(study.stopped).checkpoints, 120)
    assert looked(study) == []


def test_no_advice_to_touch_what_a_living_run_uses(study: Study) -> None:
    """Damage in the folder of a run in work is said, and left until it has ended."""
    study.attempt(study.stopped, process=this_process())
    os.truncate(study.run(study.stopped).progress, 5)
    assert "leave it while its run is in work" in only(looked(study)).remedy


def test_the_remedy_for_a_damaged_progress_keeps_the_checkpoint(study: Study) -> None:
    """A retry as things are would set the checkpoints aside; without the file it goes on from them."""
    os.truncate(study.run(study.stopped).progress, 5)
    assert "move it out of the sweep's folder, then" in only(looked(study)).remedy
    assert "goes on from its checkpoint" in only(looked(study)).remedy


def test_of_two_checkpoints_the_older_is_offered(study: Study) -> None:
    """The remedy of a damaged checkpoint says where the run goes on, and that it starts again when none is whole."""
    newest, older = list_checkpoints(study.run(study.stopped).checkpoints)
    flip_a_bit(newest)
    assert f"goes on from {older.name}" in only(looked(study)).remedy
    flip_a_bit(older)
    assert all("from the first epoch" in finding.remedy for finding in looked(study))


def test_whole_is_what_the_trainer_calls_whole(study: Study) -> None:
    """inspect agrees with load, which needs torch, on a bit flipped anywhere in the header, and in some tensors."""
    path = study.checkpoint(study.stopped, 2)
    content = path.read_bytes()
    assert inspect(path) == checkpoint.load(path).info
    header = 8 + int.from_bytes(content[:8], "little")
    for position in (*range(header), *range(header, len(content), 50)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert (said(inspect, path) is None) == (said(checkpoint.load, path) is None), position


@pytest.mark.parametrize("change", [lambda content: content + b"\0", lambda content: content[:-1]])
def test_a_checkpoint_ends_where_its_tensors_do(study: Study, change: Callable[[bytes], bytes]) -> None:
    """A byte more or less is damage, as it is to the trainer."""
    path = FILES["checkpoint"](study)
    path.write_bytes(change(path.read_bytes()))
    assert said(inspect, path)
    assert said(checkpoint.load, path)


def test_an_attempt_that_ended_while_it_was_looked_at_is_read_again(study: Study) -> None:
    """Once its process is gone, what it wrote last counts, not what was read while it lived."""
    study.attempt(study.stopped)
    run = study.run(study.stopped)
    read_before = {1: from_json(run.attempt(1).read_bytes(), AttemptRecord)}
    study.attempt(study.stopped, outcome="interrupted")
    assert last_word(run, read_before) is False
    assert read_before[1].outcome == "interrupted"


def said(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_type_of_tensor_can_be_verified_without_torch(study: Study, element: str) -> None:
    """The checksum is the trainer's for each type, shapes of no, one and two dimensions and empty ones included."""
    dtype = getattr(torch, ELEMENTS[element][0].removeprefix("torch."))
    assert torch.zeros(1, dtype=dtype).element_size() == ELEMENTS[element][1]
    tensors = {"a": torch.ones((2, 3), dtype=dtype), "b": torch.ones((), dtype=dtype), "c": torch.ones(0, dtype=dtype)}
    info = checkpoint.load(study.checkpoint(study.stopped, 2)).info
    path = checkpoint.save(study.path / "elsewhere", info, {**tensors, "d": torch.ones(5)})
    assert inspect(path) == info


def test_a_newer_checkpoint_is_told_from_a_damaged_one(study: Study) -> None:
    """Whole, by its checksum, and of a schema this program does not know."""
    path = FILES["checkpoint"](study)
    make_newer(path)
    with pytest.raises(NewerCheckpointError, match="schema 9"):
        inspect(path)
    flip_a_bit(path)
    with pytest.raises(CheckpointError, match="checksum"):
        inspect(path)


@pytest.mark.slow
def test_the_command_prints_a_line_a_finding_and_exits_3(study: Study, sweep: Command) -> None:
    """In a pipe: kind, path, what, remedy, by tabs; --json the same as one document; 0 when all is well."""
    assert sweep("verify", study.file).stdout == ""
    assert sweep.json("verify", study.file)["findings"] == []
    os.truncate(study.run(study.done).result, 7)
    (study.path / "a\tb\nc").write_text("")
    done = sweep("verify", study.file, expect=3)
    first, second = [line.split("\t") for line in done.stdout.splitlines()]
    assert first[:2] == ["damaged", f"runs/{DONE}/result.json"]
    assert f"'sweep retry {study.file} {DONE}'" in first[3]
    assert second[:2] == ["orphaned", "a b c"]
    document = sweep.json("verify", study.file, expect=3)
    assert (document["schema_version"], document["sweep"]) == (1, "study")
    keys = {"kind", "path", "what", "remedy", "run"}
    assert [set(finding) for finding in document["findings"]] == [keys, keys]
    assert document["findings"][0]["run"] == DONE


def test_what_verify_advises_for_a_damaged_result_works(study: Study) -> None:
    """Moved out of the folder as it says, the file is no finding any more but a result that is gone."""
    result = study.run(study.done).result
    os.truncate(result, 7)
    remedy = only(looked(study)).remedy
    assert remedy.startswith("move it out of the sweep's folder")
    result.rename(study.file.parent / "result.json")
    assert only(looked(study)).what == "is gone, though attempt 1 ended well"


def test_data_is_the_fingerprint_of_the_made_results(study: Study) -> None:
    """The fixtures agree, or the cases above would prove nothing."""
    assert make_result(study.done).data.fingerprint == DATA
    assert [study.done.run.id, study.stopped.run.id, study.failed.run.id] == [DONE, STOPPED, FAILED]


@pytest.mark.slow
def test_a_sweep_at_work_has_no_findings_and_one_that_was_killed_says_so(
    sweep: Command, data: Path, tmp_path: Path
) -> None:
    """A real worker, looked at again and again; killed with SIGKILL; and the way the finding says, to the end."""
    file = tmp_path / "study.yaml"
    grid = {"architecture": ["resnet18"], "dataset": ["cifar10"], "ratio": [0.5], "seed": [1]}
    training = {"epochs": 4, "batch_size": 4, "lr_milestones": [1]}
    execution = {"workers": 1, "checkpoint_interval_s": 0}
    options = {"output": str(tmp_path / "runs"), "data": str(data)}
    file.write_text(
        json.dumps({"name": "study", "grid": grid, "training": training, "execution": execution, **options})
    )
    loaded = load_sweep(file)
    folder = SweepFolder(loaded.folder)
    run = folder.run(loaded.runs[0].id)
    sweep("submit", file, "--yes", "--no-wait")
    looks = 0

    def it_has_a_checkpoint() -> bool:
        nonlocal looks
        looks += 1
        assert verify(loaded) == []
        return bool(list_checkpoints(run.checkpoints))

    wait_for(it_has_a_checkpoint, "a checkpoint")
    [submission] = folder.read_submissions()
    [job] = submission.jobs
    os.kill(job.process.pid, signal.SIGKILL)
    wait_for(lambda: is_alive(job.process) is False, "the worker's end")
    finding = only(verify(loaded))
    assert (finding.kind, finding.path.rpartition("/")[2]) == (Kind.HALF_WRITTEN, "0001.json")
    assert "goes on from its checkpoint" in finding.remedy
    sweep("retry", file, finding.run, "--yes")
    assert verify(loaded) == []
    assert run.result.exists()
    assert looks > 1


def test_frozen_code_is_read_again_too(study: Study) -> None:
    """A whole copy is well; one that is not what was sent is damaged; a stranger beside it is named."""
    code = freeze()
    store(code, study.folder.submissions)
    place = snapshot(study.folder.submissions, code.record)
    assert looked(study) == []
    (place / "slurm" / "task.py").write_text("")
    found = only(looked(study))
    assert (found.kind, found.path) == (Kind.DAMAGED, f"submissions/code/{place.name}")
    assert "--new-code" in found.remedy
    shutil.rmtree(place)
    (study.folder.code / "notes").mkdir()
    assert only(looked(study)).kind is Kind.ORPHANED

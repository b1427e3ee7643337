"""`sweep clean`: frees exactly what it says, never anything a run that is not done could need."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from permissions import permissions_kept
from result_fixtures import make_result, write_result
from upkeep_fixtures import EPOCHS, TOKEN, Study, leave_unfinished, study, tree

from slurm.jobs import Submission
from sweep.config.schema import ExecutionSection
from sweep.upkeep.clean import Freed, amount, find_needless, free
from trainer.records.base import now
from trainer.records.checkpoint_file import checkpoint_name
from trainer.records.code import Code
from trainer.records.files import write_json
from trainer.records.process import Process, this_process
from trainer.records.recipe import Recipe

__all__ = ["study"]

HOUR = 3600.0
OLD = 2 * HOUR


def freed(study: Study, *, superseded: bool = False) -> set[str]:
    """Clean, and give what is gone; hold it to having changed nothing else and counted right."""
    before = tree(study.path)
    done, problems = free(study.sweep, find_needless(study.sweep), superseded=superseded)
    after = tree(study.path)
    gone = before.keys() - after.keys()
    assert problems == []
    assert not after.keys() - before.keys()
    kinds = {name for name, (kind, *_) in after.items() if kind == "folder"}  # their times change
    assert all(after[name][:2] == before[name][:2] for name in after)
    assert all(after[name] == before[name] for name in after.keys() - kinds)
    files = [content for name, (kind, content, _) in before.items() if name in gone and kind == "file"]
    assert done == Freed(len(files), sum(map(len, files)))
    return gone


def aside(study: Study, name: str = "20260101T120000000000") -> Path:
    """Set the stopped run's like aside: a folder with a checkpoint in it."""
    study.checkpoint(study.failed, 3)
    target = study.path / "superseded" / f"{study.failed.run.id}.{name}"
    target.parent.mkdir(exist_ok=True)
    study.run(study.failed).path.rename(target)
    return target


def test_only_the_checkpoints_of_done_runs_go(study: Study) -> None:
    """Those of the interrupted run stay; so does all else of the done one."""
    path = study.checkpoint(study.done, 3)
    other = study.run(study.done).checkpoints / "mine.txt"
    other.write_text("mine")
    assert freed(study) == {str(path.relative_to(study.path))}
    assert freed(study) == set()


def no_result(study: Study) -> None:
    study.run(study.done).result.unlink()


def damaged_result(study: Study) -> None:
    os.truncate(study.run(study.done).result, 500)


def stale_result(study: Study) -> None:
    recipe = Recipe(epochs=4, lr_milestones=(2,), dropout=0.1)
    changed = study.done.model_copy(update={"training": recipe, "training_hash": recipe.hash})
    write_result(study.path, make_result(changed))


def other_runs_result(study: Study) -> None:
    result = make_result(study.stopped)
    study.run(study.done).result.write_text(result.model_dump_json())


def in_work_here(study: Study) -> None:
    study.attempt(study.done, process=this_process())


def in_work_elsewhere(study: Study) -> None:
    study.attempt(study.done, process=Process(host="another", pid=1, started=1.0))


NOT_DONE = [no_result, damaged_result, stale_result, other_runs_result, in_work_here, in_work_elsewhere]


@pytest.mark.parametrize("change", NOT_DONE)
def test_nothing_of_a_run_that_is_not_done_goes(study: Study, change: Callable[[Study], None]) -> None:
    """Without a valid result of the plan, or while its process may remove them itself, checkpoints stay."""
    study.checkpoint(study.done, 3)
    change(study)
    assert freed(study) == set()


@pytest.mark.parametrize("change", NOT_DONE)
def test_a_run_that_is_no_longer_done_when_its_turn_comes_is_left_alone(
    study: Study, change: Callable[[Study], None]
) -> None:
    """What was found is looked at again right before it goes."""
    path = study.checkpoint(study.done, 3)
    needless = find_needless(study.sweep)
    assert needless.checkpoints == {study.done.run.id: [path]}
    change(study)
    assert free(study.sweep, needless, superseded=False) == (Freed(), [])
    assert path.exists()


def test_what_killed_writers_left_goes_after_an_hour(study: Study) -> None:
    """Wherever it lies; younger ones, whose writers may live, stay."""
    places = [
        study.path,
        study.folder.submissions,
        study.folder.jobs("0a1b2c3d-0001").array(),
        study.run(study.stopped).path,
        study.run(study.stopped).attempts,
        study.run(study.stopped).checkpoints,
        study.run(study.done).path,
    ]
    for place in places:
        leave_unfinished(place, HOUR - 60, ".young.0123456789ab.tmp")
    old = {str(leave_unfinished(place, OLD).relative_to(study.path)) for place in places}
    assert freed(study) == old


@pytest.mark.parametrize(
    "process", [this_process(), Process(host="another", pid=1, started=1.0)], ids=["here", "there"]
)
def test_what_a_living_attempt_may_be_writing_stays(study: Study, process: Process) -> None:
    """However old it looks: clocks differ, and a stopped process may go on."""
    study.attempt(study.stopped, process=process)
    leave_unfinished(study.run(study.stopped).checkpoints, OLD)
    assert freed(study) == set()


def test_a_leftover_whose_run_is_taken_up_meanwhile_stays(study: Study) -> None:
    """It is looked at again right before it goes."""
    path = leave_unfinished(study.run(study.stopped).path, OLD)
    needless = find_needless(study.sweep)
    assert needless.leftovers == [path]
    study.attempt(study.stopped, 2, process=this_process())
    assert free(study.sweep, needless, superseded=False) == (Freed(), [])
    assert path.exists()


def test_the_final_checkpoint_stays_where_the_sweep_file_keeps_it(study: Study) -> None:
    """keep_checkpoints: final spares the state after the last epoch; what else a done run left goes."""
    for epochs in (EPOCHS - 1, EPOCHS):
        study.checkpoint(study.done, epochs)
    study.sweep = study.sweep._replace(execution=ExecutionSection(keep_checkpoints="final"))
    (gone,) = freed(study)
    assert gone.endswith(f"{study.done.run.id}/checkpoints/{checkpoint_name(EPOCHS - 1)}")


def test_folders_set_aside_go_only_when_asked(study: Study) -> None:
    """Whole; what lies beside them and was not put there by sweep stays."""
    target = aside(study)
    (target.parent / "mine").mkdir()
    assert freed(study) == set()
    inside = {str(path.relative_to(study.path)) for path in (target, *target.rglob("*"))}
    assert freed(study, superseded=True) == inside


def test_a_folder_set_aside_in_which_a_process_works_stays(study: Study) -> None:
    """Its process was on a node that was thought dead."""
    study.attempt(study.failed, 2, process=this_process())
    aside(study)
    assert freed(study, superseded=True) == set()


@pytest.mark.parametrize("linked", ["checkpoints", "run", "file", "superseded", "inside"])
def test_nothing_behind_a_link_goes(study: Study, tmp_path: Path, linked: str) -> None:
    """A link to another folder or file, or one inside a folder that goes: what it leads to stays as it was."""
    study.checkpoint(study.done, 3)
    elsewhere = tmp_path / "elsewhere"
    if linked == "inside":
        elsewhere.mkdir()
        (elsewhere / "precious").write_text("precious")
        (aside(study) / "link").symlink_to(elsewhere)
    else:
        run = study.run(study.done)
        target = aside(study).parent if linked == "superseded" else None
        path = {"checkpoints": run.checkpoints, "run": run.path, "file": run.checkpoints / "epoch-000003.safetensors"}
        moved = target or path[linked]
        moved.rename(elsewhere)
        moved.symlink_to(elsewhere)
    before = tree(elsewhere) if elsewhere.is_dir() else {"": ("file", elsewhere.read_bytes(), 0)}
    free(study.sweep, find_needless(study.sweep), superseded=True)
    after = tree(elsewhere) if elsewhere.is_dir() else {"": ("file", elsewhere.read_bytes(), 0)}
    assert after == before
    if linked == "file":
        assert (study.run(study.done).checkpoints / "epoch-000003.safetensors").is_symlink()
    if linked == "inside":
        assert not list((study.path / "superseded").iterdir())


def test_what_may_not_be_removed_is_said(study: Study) -> None:
    """The others go all the same."""
    study.checkpoint(study.done, 3)
    path = leave_unfinished(study.run(study.stopped).path, OLD)
    study.run(study.done).checkpoints.chmod(0o500)
    with permissions_kept():
        done, [problem] = free(study.sweep, find_needless(study.sweep), superseded=False)
    study.run(study.done).checkpoints.chmod(0o700)
    assert isinstance(problem, PermissionError)
    assert done.files == 1
    assert not path.exists()


@pytest.mark.slow
def test_it_says_how_much_and_a_dry_run_removes_nothing(study: Study, sweep: Command) -> None:
    """Files and bytes, by what they are, before anything happens; then exactly that goes."""
    paths = [study.checkpoint(study.done, 3), leave_unfinished(study.path, OLD)]
    aside(study)
    total = amount(paths)
    assert total == Freed(2, sum(path.stat().st_size for path in paths))
    before = tree(study.path)
    told = sweep("clean", study.file, "--dry-run").stderr
    assert tree(study.path) == before
    assert told.startswith(f"would free {total} in {study.path}\n")
    assert f"checkpoints of 1 done runs: {amount(paths[:1])}" in told
    assert "1 run folders in superseded/" in told
    assert "they stay without '--superseded'" in told
    assert f"freed {total}" in sweep("clean", study.file, "--yes").stderr
    assert before.keys() - tree(study.path).keys() == {str(path.relative_to(study.path)) for path in paths}
    assert "nothing to free" in sweep("clean", study.file, "--yes").stderr
    sweep("clean", study.file, "--yes", "--superseded")
    assert not list((study.path / "superseded").iterdir())


@pytest.mark.slow
def test_status_and_tables_are_the_same_after_it(study: Study, sweep: Command) -> None:
    """What was freed is in no state, no table and no remedy."""
    study.checkpoint(study.done, 3)
    leave_unfinished(study.run(study.stopped).path, OLD)

    def shown() -> tuple[object, dict[str, bytes]]:
        status = sweep.json("status", study.file)
        sweep("tables", study.file)
        return status["runs"], {path.name: path.read_bytes() for path in (study.path / "tables").iterdir()}

    before = shown()
    sweep("clean", study.file, "--yes")
    assert not (study.run(study.done).checkpoints / "epoch-000003.safetensors").exists()
    assert shown() == before
    assert sweep("verify", study.file).stdout == ""


def test_amounts_are_written_for_people() -> None:
    """In GB, small ones in MB."""
    assert str(Freed(3, 1_234_567_890)) == "3 files, 1.23 GB"
    assert str(Freed(1, 40_000)) == "1 file, 0.04 MB"
    assert amount([]) == Freed(0, 0)


def frozen(study: Study, snapshot: str, runs: list[str], number: int = 2) -> Path:
    """Leave a copy of code, and a submission of these runs that names it."""
    token = f"{TOKEN[:-1]}{number}"
    codes = [Code(snapshot=snapshot)]
    record = Submission(token=token, created=now(), executor="local", runs=runs, codes=codes)
    write_json(study.folder.submission(token), record)
    path = study.folder.code / snapshot
    (path / "trainer").mkdir(parents=True)
    (path / "trainer" / "__init__.py").write_text("x = 1\n")
    return path


def below(study: Study, path: Path) -> set[str]:
    return {str(found.relative_to(study.path)) for found in (path, *path.rglob("*"))}


def test_code_goes_once_no_unfinished_run_was_sent_with_it(study: Study) -> None:
    """What one run may go on with stays, for others' sake too; so does all while a submission cannot be read."""
    gone = frozen(study, "a" * 16, [study.done.run.id])
    frozen(study, "b" * 16, [study.done.run.id, study.stopped.run.id], 3)
    record = study.folder.submission(TOKEN)
    whole = record.read_bytes()
    record.write_text("half")
    assert freed(study) == set()
    record.write_bytes(whole)
    wanted = below(study, gone)
    assert freed(study) == wanted


def test_code_of_a_run_that_is_in_work_stays(study: Study) -> None:
    """Its result is written, and its process may still import what it has not yet."""
    frozen(study, "a" * 16, [study.done.run.id])
    study.attempt(study.done, process=this_process())
    assert freed(study) == set()


def test_half_stored_code_of_a_killed_submitter_goes_when_it_is_old(study: Study) -> None:
    """A living one takes seconds."""
    made = study.folder.code / f".{'a' * 16}.0123456789ab.tmp"
    made.mkdir(parents=True)
    (made / "__main__.py").write_text("")
    assert freed(study) == set()
    os.utime(made, (time.time() - OLD, time.time() - OLD))
    assert freed(study) == {str(made.relative_to(study.path)), str((made / "__main__.py").relative_to(study.path))}


def test_code_that_is_wanted_again_at_this_moment_is_put_back(study: Study) -> None:
    """Someone submits between the look and the removal: what was found needless is looked at once more."""
    path = frozen(study, "a" * 16, [study.done.run.id])
    needless = find_needless(study.sweep)
    assert needless.code == [path]
    before = tree(path)
    record = Submission(
        token="a-9",  # noqa: S106
        created=now(),
        executor="local",
        runs=[study.stopped.run.id],
        codes=[Code(snapshot="a" * 16)],
    )
    write_json(study.folder.submission("a-9"), record)
    done, problems = free(study.sweep, needless, superseded=False)
    assert (done, problems) == (Freed(), [])
    assert tree(path) == before
    assert list(study.folder.code.iterdir()) == [path]

"""Which code runs go with when they are submitted and tried again, as the clone is edited in between."""

import shutil
from pathlib import Path

import pytest
from upkeep_fixtures import TOKEN, Study, study, tree

from slurm.code import FrozenCode, freeze, snapshot, store
from slurm.jobs import Submission
from slurm.limits import ClusterLimits
from slurm.pools import Pool
from sweep.config.schema import Cluster, ClusterSection
from sweep.errors import InputError
from sweep.plan.rows import PlanRow, make_plan
from sweep.plan.timings import learn
from sweep.status.look import look
from sweep.submit.batches import bundles, slurm_batches
from sweep.submit.code import choose_codes, code_words
from sweep.submit.start import start
from sweep.submit.target import Here
from trainer.records.code import Code
from trainer.records.files import read_json, write_json
from trainer.records.recipe import Recipe

__all__ = ["study"]

EARLIER = Code(snapshot="", commit="a" * 40, dirty=True)  # the name comes with the content
PRESENT = Code(snapshot="b" * 16, commit="b" * 40, dirty=False)


@pytest.fixture
def sent(study: Study) -> Code:
    """The code that the sweep's only submission was sent with."""
    frozen = freeze()
    frozen = FrozenCode(EARLIER.model_copy(update={"snapshot": frozen.record.snapshot}), frozen.files)
    store(frozen, study.folder.submissions)
    record = read_json(study.folder.submission(TOKEN), Submission)
    assert record is not None
    write_json(study.folder.submission(TOKEN), record.model_copy(update={"codes": [frozen.record]}))
    return frozen.record


def rows_of(study: Study) -> list[PlanRow]:
    seen = look(study.sweep)
    return make_plan(study.sweep, seen.statuses, learn(study.sweep, seen))


def chosen(study: Study, present: Code = PRESENT, *, new: bool = False) -> dict[str, Code]:
    return choose_codes(study.sweep, rows_of(study), look(study.sweep), present, new=new)


def test_a_run_goes_on_with_the_code_that_began_it(study: Study, sent: Code) -> None:
    """One that never began takes the present, and with '--new-code' all do."""
    begun = (study.stopped.run.id, study.failed.run.id)
    not_begun = (study.cancelled.run.id, study.done.run.id)
    assert chosen(study) == {**dict.fromkeys(begun, sent), **dict.fromkeys(not_begun, PRESENT)}
    assert set(chosen(study, new=True).values()) == {PRESENT}


def test_the_same_code_is_the_present_whatever_was_committed_meanwhile(study: Study, sent: Code) -> None:
    """A commit that changes no file that jobs run makes no difference to them, and splits no array."""
    present = PRESENT.model_copy(update={"snapshot": sent.snapshot})
    assert set(chosen(study, present).values()) == {present}


def test_other_work_in_a_runs_folder_does_not_keep_its_code(study: Study, sent: Code) -> None:
    """It is set aside, and the run begins anew."""
    study.commit(study.stopped, training=Recipe(epochs=4, lr_milestones=(2,), dropout=0.1))
    assert chosen(study)[study.stopped.run.id] == PRESENT


def test_runs_of_an_earlier_version_take_the_present_code(study: Study) -> None:
    """Its submissions name none."""
    assert set(chosen(study).values()) == {PRESENT}


def test_a_copy_that_is_gone_is_said_before_anything_is_sent(study: Study, sent: Code) -> None:
    """With the run that wants it, and the way on without it."""
    shutil.rmtree(snapshot(study.folder.submissions, sent))
    with pytest.raises(InputError) as error:
        chosen(study)
    assert f"code/{sent.snapshot}: is not there, and {study.stopped.run.id} was begun with it" in str(error.value)
    assert "'--new-code'" in str(error.value)
    assert set(chosen(study, new=True).values()) == {PRESENT}


def test_what_is_said_of_the_code() -> None:
    """Nothing of a clean tree; a line on changes in no commit, and one on runs that go on with other code."""
    kept = EARLIER.model_copy(update={"snapshot": "c" * 16})
    dirty = PRESENT.model_copy(update={"dirty": True})
    assert code_words({"r1": PRESENT}, PRESENT) == []
    said = [f"the jobs run the code as it is now: {'b' * 16}, commit {'b' * 12} with uncommitted changes"]
    assert code_words({"r1": dirty}, dirty) == said
    (line,) = code_words({"r1": kept, "r2": kept}, dirty)
    assert line.startswith(
        "r1 and 1 more: continues with the code that began it (cccccccccccccccc, commit aaaaaaaaaaaa "
    )
    assert "'--new-code'" in line


def test_local_workers_run_one_code_and_leave_the_other_for_later(study: Study, sent: Code) -> None:
    """Those of the first run go first; a submission that waits starts the others after them."""
    rows = [row for row in rows_of(study) if row.id != study.done.run.id]
    planned = Here(study.sweep, 2).plan(rows, {}, codes=chosen(study))
    (batch,) = planned.batches
    assert batch.code == sent
    assert {run_id for task in batch.tasks for run_id in task} == {study.stopped.run.id, study.failed.run.id}
    assert planned.left_out == {study.cancelled.run.id}
    assert any("1 runs are left for later" in note for note in planned.notes)
    rest = Here(study.sweep, 2).plan([row for row in rows if row.id in planned.left_out], {}, codes=chosen(study))
    assert [batch.code for batch in rest.batches] == [PRESENT]
    assert not rest.left_out


def test_arrays_hold_runs_of_one_code(study: Study) -> None:
    """A job runs one: the same pool and recipe with two codes is two arrays, and each bundle names its own."""
    rows = rows_of(study)
    pool = rows[0].placed.pool
    cluster = Cluster(Path("c.yaml"), {pool: Pool(device="cpu", partition="p")}, ClusterSection(file="c", assign=[]))
    limits = ClusterLimits(max_array_size=1001, max_jobs=1000, message_timeout_s=10, partitions={})
    other = Code(snapshot="c" * 16)
    codes = {row.id: other if number else PRESENT for number, row in enumerate(rows)}
    batches = slurm_batches(study.sweep, cluster, rows, limits, {}, codes=codes)
    assert [(batch.code, sum(map(len, batch.tasks))) for batch in batches] == [(PRESENT, 1), (other, 3)]
    assert [bundle.code for bundle in bundles(study.sweep, TOKEN, rows, batches)] == [PRESENT, other]


def test_code_of_a_version_that_cannot_be_told_its_work_is_refused(study: Study, sent: Code) -> None:
    """Before anything is written: its jobs would only die of what they read."""
    (snapshot(study.folder.submissions, sent) / "trainer" / "records" / "run.py").write_text("Bundle = None\n")
    rows = [row for row in rows_of(study) if row.id == study.stopped.run.id]
    planned = Here(study.sweep, 1).plan(rows, {}, codes={row.id: sent for row in rows})
    before = tree(study.path)
    with pytest.raises(InputError, match="cannot read today's job files"):
        start(study.sweep, planned, rows, look(study.sweep), FrozenCode(PRESENT, {}))
    assert tree(study.path) == before

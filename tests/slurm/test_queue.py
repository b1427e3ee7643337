"""What is known of job arrays after asking Slurm: parsing, merging, and how a task stands.

The answers are what Slurm 22.05.8 (Debian 12) printed, columns aligned by spaces taken out; squeue and sacct themselves
are stand-ins on PATH that print them, note how they were called, and fail as the real ones did.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from slurm.answers import parse_sacct, parse_squeue
from slurm.jobs import ArrayRecord, JobView, Phase, Resources, Snapshot, TaskRow
from slurm.origin import cluster_name
from slurm.queue import refresh, settled, tasks_there
from slurm.view import view
from trainer.records.attempt import Cause
from trainer.records.base import now
from trainer.records.files import read_json, write_json

SEEN = datetime(2026, 11, 23, tzinfo=timezone.utc)
CONTROLLER_DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
DATABASE_DOWN = "sacct: error: Problem talking to the database: Connection refused"
ACCOUNTING_OFF = "Slurm accounting storage is disabled"

RUNNING = "57|0|RUNNING|None|v100-2|0|1795392677|1795392678|1795392682|0|0|t.aa.1"
PREEMPTED = "57|0|PREEMPTED|None|v100-2|0|1795392677|1795392678|1795392687|15|9|t.aa.1"
COMPLETING = "57|0|COMPLETING|None|v100-2|1|1795392677|1795392687|1795396287|0|0|t.aa.1"
REQUEUED = "57|0|PENDING|BeginTime||1|1795392694|1795392700|1795396300|0|9|t.aa.1"
RUNNING_AGAIN = "57|0|RUNNING|None|v100-2|1|1795392694|1795392700|1795396300|0|9|t.aa.1"
SACCT_RUNNING = "57_0|RUNNING|0:0|0:0|v100-2|1795392677|1795392678|Unknown|None|t.aa.1"
SACCT_PREEMPTED = """\
57_0|PREEMPTED|0:0|0:0|v100-2|1795392677|1795392678|1795392687|None|t.aa.1
57_0.batch|CANCELLED|0:15||v100-2|1795392678|1795392678|1795392687||batch
57_0.0|CANCELLED|0:9||v100-2|1795392678|1795392678|1795392694||sh"""
SACCT_PENDING_AGAIN = "57_0|PENDING|0:0|0:0|None assigned|1795392694|Unknown|Unknown|BeginTime|t.aa.1"
HELD = "19|{}|PENDING|JobHeldUser||0|1795392336|N/A|N/A|0|0|t.aa.1"
SACCT_HELD = "19_[0-3%2]|PENDING|0:0|0:0|None assigned|1795392336|Unknown|Unknown|JobHeldUser|t.aa.1"
TRUNCATED = (
    "24_[0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,40,42...]"
    "|PENDING|0:0|0:0|None assigned|1795392336|Unknown|Unknown|JobHeldUser|t.aa.1"
)


HEADERS = {
    "squeue": "ARRAY_JOB_ID|ARRAY_TASK_I|STATE|REASON|NODELIST|RESTART_CO|SUBMIT_TIME|START_TIME|END_TIME|EXIT_CODE|"
    "DERIVED_EC|NAME",
    "sacct": "JobID|State|ExitCode|DerivedExitCode|NodeList|Submit|Start|End|Reason|JobName",
}


class Slurm:
    """squeue and sacct as stand-ins on PATH: what they answer, and how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("squeue", "sacct"):
            script = folder / name
            script.write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/calls\n. {folder}/{name}.answer\n')
            script.chmod(0o755)
            self.answers(name, "")

    def answers(self, name: str, text: str) -> None:
        (self.folder / f"{name}.text").write_text("\n".join(filter(None, (HEADERS[name], text))) + "\n")
        (self.folder / f"{name}.answer").write_text(f"cat {self.folder}/{name}.text\n")

    def fails(self, name: str, words: str) -> None:
        (self.folder / f"{name}.answer").write_text(f"echo '{words}' >&2\nexit 1\n")

    def calls(self) -> list[str]:
        """Return the calls since this was last asked."""
        path = self.folder / "calls"
        lines = path.read_text().replace(f"{self.folder}/", "").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Slurm(folder)


def array(
    tag: str = "t.aa.1", tasks: int = 1, *, job: str | None = None, age_s: float = 600, clusters: str | None = None
) -> ArrayRecord:
    return ArrayRecord(
        tag=tag,
        pool="v100",
        resources=Resources(partition="v100", clusters=clusters),
        tasks=[["a-run"]] * tasks,
        asked=now() - timedelta(seconds=age_s),
        job=job,
    )


def ask(arrays: ArrayRecord | Sequence[ArrayRecord], known: Snapshot | None = None) -> Snapshot:
    time.sleep(0.002)  # times are to the millisecond
    every = [arrays] if isinstance(arrays, ArrayRecord) else arrays
    return refresh(every, known or Snapshot(), since=now() - timedelta(hours=1))


def stands(array: ArrayRecord, snapshot: Snapshot, index: int = 0, log: str = "") -> JobView:
    return view(array, index, snapshot, lambda row: log)


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("", "it printed no list, but: nothing"),
        ("Usage: squeue [OPTIONS]", "it printed no list, but: Usage: squeue [OPTIONS]"),
        (f"{HEADERS['squeue']}\n57|0|RUNN", "its list is cut short, at '57|0|RUNN'"),
    ],
)
def test_an_answer_that_is_no_list_says_nothing_of_a_job(fake: Slurm, printed: str, problem: str) -> None:
    """With exit code 0: a wrapper that failed, another program of that name, a pipe that broke."""
    known = ask(array(job="57"))
    assert known.squeue.problem is None
    fake.answers("squeue", "")
    (fake.folder / "squeue.text").write_text(f"{printed}\n")
    found = ask(array(job="57"), known)
    assert found.squeue.problem == f"squeue failed: {problem}"
    assert found.squeue.answered == known.squeue.answered


def test_a_site_s_notices_around_a_list_are_left_out(fake: Slurm) -> None:
    fake.answers("squeue", f"{RUNNING}\nMaintenance on Monday: see job 12.")
    path = fake.folder / "squeue.text"
    path.write_text(f"Welcome, 3 of your jobs wait.\n{path.read_text()}")
    assert stands(array(), ask(array())).phase is Phase.RUNNING


def test_squeue_rows_are_read_as_they_are_meant() -> None:
    """A forecast is no start and a time limit no end; a wait status is an exit code; strange rows are passed over."""
    text = "\n".join(
        [
            "1|1|FAILED|NonZeroExitCode|cpu-1|0|1795392336|1795392337|1795392338|768|35072|t.aa.1   ",
            REQUEUED.replace("57|0", "57|2"),
            RUNNING.replace("57|0", "57|3"),
            "70|N/A|RUNNING|None|cpu-1|0|1795392336|1795392336|1795392336|0|0|t.aa.1",
            "71|0|RUNNING|None|cpu-1|0|1795392336|1795392336|1795392336|0|0|another|name",
            "slurm_load_jobs: something new",
            "",
        ]
    )
    rows = parse_squeue(text, ["t.aa.1"], SEEN)["t.aa.1"]
    assert sorted(rows) == [1, 2, 3]
    failed, waiting, running = rows[1], rows[2], rows[3]
    assert (failed.job, failed.exit_code, failed.derived_exit_code) == ("1_1", "3:0", "137:0")
    assert failed.submitted == datetime(2026, 11, 23, 0, 5, 36, tzinfo=timezone.utc)
    assert (failed.ended, failed.seen, failed.source) == (failed.submitted + timedelta(seconds=2), SEEN, "squeue")
    assert (waiting.started, waiting.node, waiting.reason, waiting.restarts) == (None, None, "BeginTime", 1)
    assert running.started is not None
    assert (running.ended, running.reason, running.node) == (None, None, "v100-2")


def test_sacct_steps_stay_with_their_job_whatever_their_names() -> None:
    """Steps have names of their own; those of others' jobs go with those jobs, also where an id is ours again."""
    text = "\n".join(
        [
            "57_0|COMPLETED|0:0|0:0|v100-1|1700000000|1700000000|1700000009|None|someone|else",
            "57_0.batch|FAILED|9:0||v100-1|1700000000|1700000000|1700000009||t.aa.1",
            SACCT_PREEMPTED,
            "58|COMPLETED|0:0|0:0|v100-1|1700000000|1700000000|1700000009|None|t.aa.1",
            "55|PENDING|0:0|0:0|p100-1|1795392677|1795392678|Unknown|None|allocation",
        ]
    )
    accounted = parse_sacct(text, ["t.aa.1"], SEEN)
    (row,) = accounted.tasks["t.aa.1"].values()
    assert (row.job, row.state) == ("57_0", "PREEMPTED")
    assert [(step.name, step.state, step.exit_code) for step in row.steps] == [
        ("batch", "CANCELLED", "0:15"),
        ("0", "CANCELLED", "0:9"),
    ]
    assert accounted.ranges == {}


@pytest.mark.parametrize(
    ("brackets", "indices"),
    [("[0-3%2]", {0, 1, 2, 3}), ("[7]", {7}), ("[0-1,5,8-12:2]", {0, 1, 5, 8, 10, 12}), ("[0,2,4...]", None)],
)
def test_a_range_names_its_tasks_unless_cut_short(brackets: str, indices: set[int] | None) -> None:
    """One row of sacct speaks for all tasks that have not begun."""
    text = f"19_{brackets}|PENDING|0:0|0:0|None assigned|1795392336|Unknown|Unknown|JobHeldUser|t.aa.1"
    (found,) = parse_sacct(text, ["t.aa.1"], SEEN).ranges["t.aa.1"]
    assert found.indices == indices


def test_parsed_rows_survive_the_disk(tmp_path: Path) -> None:
    """Rows are built unchecked for speed: what is written must still read back as the same records."""
    rows = {
        **parse_squeue(REQUEUED, ["t.aa.1"], SEEN),
        "u": parse_sacct(SACCT_PREEMPTED, ["t.aa.1"], SEEN).tasks["t.aa.1"],
    }
    snapshot = Snapshot(tasks=rows)
    write_json(tmp_path / "queue.json", snapshot)
    assert read_json(tmp_path / "queue.json", Snapshot) == snapshot


def test_many_arrays_cost_one_squeue_and_no_sacct_while_all_wait(fake: Slurm) -> None:
    """Schedulers are not hammered: one query whatever the number of arrays, and none where nothing was submitted."""
    arrays = [array(f"t.aa.{number}", job=str(number)) for number in range(20)]
    fake.answers("squeue", "\n".join(HELD.format(0).replace("t.aa.1", each.tag) for each in arrays))
    snapshot = ask(arrays)
    (call,) = fake.calls()
    assert call.startswith("squeue ")
    assert f"--name={','.join(each.tag for each in arrays)} " in call
    assert all(stands(each, snapshot).phase is Phase.WAITING for each in arrays)
    unasked = array().model_copy(update={"asked": None})
    refused = array().model_copy(update={"refused": "Invalid account"})
    assert ask([unasked, refused], snapshot) == snapshot
    assert fake.calls() == []


def test_sacct_is_asked_once_and_by_id_where_ids_are_known(fake: Slurm) -> None:
    """Only -j shows jobs that were never eligible; the ids come from sbatch or from squeue's rows."""
    arrays = [array("t.aa.1", 4), array("t.aa.2", job="57"), array("t.aa.3", job="99")]
    fake.answers("squeue", "\n".join([HELD.format(1), RUNNING.replace("t.aa.1", "t.aa.3")]))
    ask(arrays)
    queue, accounting = fake.calls()
    assert queue.startswith("squeue ")
    assert accounting.startswith("sacct ")
    assert accounting.endswith(" -j 19,57")


def test_sacct_is_asked_by_name_where_an_id_is_unknown(fake: Slurm) -> None:
    """sbatch was cut off before it named the job: its name finds it, since the first submission."""
    ask([array("t.aa.1"), array("t.aa.2", job="57")])
    _, accounting = fake.calls()
    assert "--name=t.aa.1,t.aa.2 -S now-7200seconds" in accounting


def test_what_is_settled_is_not_asked_again(fake: Slurm) -> None:
    """Once accounting has told how every task ended, no query remains."""
    fake.answers("squeue", PREEMPTED)
    fake.answers("sacct", SACCT_PREEMPTED)
    one = array(job="57")
    snapshot = ask(one)
    assert settled(one, snapshot)
    assert len(fake.calls()) == 2
    again = ask(one, snapshot)
    assert [call.split()[0] for call in fake.calls()] == ["squeue"]
    assert settled(one, again)
    row = again.tasks["t.aa.1"][0]
    assert (row.source, row.restarts, len(row.steps)) == ("sacct", 0, 2)
    assert not settled(array(tasks=2), again)


def test_an_exit_code_is_kept_whole(fake: Slurm) -> None:
    """sacct shows 255 as 127, a command that was not found; squeue's number stays when both told."""
    fake.answers("squeue", "44|0|FAILED|NonZeroExitCode|cpu-1|0|1795392523|1795392551|1795392551|65280|0|t.aa.1")
    fake.answers("sacct", "44_0|FAILED|127:0|0:0|cpu-1|1795392523|1795392551|1795392551|None|t.aa.1")
    one = array(job="44")
    snapshot = ask(one)
    assert settled(one, snapshot)
    assert snapshot.tasks["t.aa.1"][0].exit_code == "255:0"
    assert stands(one, snapshot).cause is Cause.EXCEPTION


def test_accounting_that_lags_undoes_no_end(fake: Slurm) -> None:
    """For seconds sacct calls an ended job running; squeue's word stays, and is asked about again."""
    fake.answers("squeue", PREEMPTED)
    fake.answers("sacct", SACCT_RUNNING)
    one = array(job="57")
    snapshot = ask(one)
    ended = stands(one, snapshot)
    assert (ended.phase, ended.cause, ended.restarts) == (Phase.ENDED, Cause.PREEMPTED, 0)
    assert not settled(one, snapshot)
    fake.answers("sacct", SACCT_PREEMPTED)
    assert settled(one, ask(one, snapshot))


def test_a_requeued_job_is_waiting_whatever_accounting_says(fake: Slurm) -> None:
    """A preempted job passes through COMPLETING, in sacct PREEMPTED; then it waits anew, and runs anew."""
    one = array(job="57")
    fake.answers("squeue", RUNNING)
    fake.answers("sacct", SACCT_PREEMPTED)
    snapshot = ask(one)
    for answer, phase, restarts in [
        (COMPLETING, Phase.RUNNING, 1),
        (REQUEUED, Phase.WAITING, 1),
        (RUNNING_AGAIN, Phase.RUNNING, 1),
    ]:
        fake.answers("squeue", answer)
        snapshot = ask(one, snapshot)
        shown = stands(one, snapshot)
        assert (shown.phase, shown.restarts, shown.id) == (phase, restarts, "57_0")
        assert not settled(one, snapshot)


def test_accounting_has_no_say_on_what_the_queue_shows_alive(fake: Slurm) -> None:
    """Asked for a neighbour that is missing, sacct calls a task ended that squeue shows on its way to a new start."""
    one = array(tasks=4, job="57")
    fake.answers("squeue", f"{COMPLETING}\n{HELD.format(2).replace('19|', '57|')}")
    fake.answers("sacct", f"{SACCT_PREEMPTED}\n{SACCT_HELD.replace('19_', '57_').replace('PENDING', 'CANCELLED by 0')}")
    snapshot = ask(one)
    assert [stands(one, snapshot, index).phase for index in range(4)] == [
        Phase.RUNNING,
        Phase.ENDED,
        Phase.WAITING,
        Phase.ENDED,
    ]
    assert snapshot.tasks["t.aa.1"][2].source == "squeue"


def test_a_job_accepted_between_the_two_queries_is_not_taken_for_gone(fake: Slurm) -> None:
    """sbatch answered after squeue and before sacct: the queue was asked too early to know the job."""
    fake.answers("sacct", SACCT_PENDING_AGAIN)
    for age_s, phase in [(5, Phase.WAITING), (600, Phase.ENDED)]:
        one = array(job="57", age_s=age_s)
        assert stands(one, ask(one)).phase is phase


def test_a_requeue_undoes_an_end_that_was_known(fake: Slurm) -> None:
    """A later incarnation wins over the terminal row of an earlier one, from squeue and, with squeue failing, sacct."""
    one = array(job="57")
    fake.answers("squeue", PREEMPTED)
    fake.answers("sacct", SACCT_PREEMPTED)
    ended = ask(one)
    fake.answers("squeue", REQUEUED)
    assert stands(one, ask(one, ended)).phase is Phase.WAITING
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.answers("sacct", SACCT_PENDING_AGAIN)
    unsettled = ended.model_copy(update={"tasks": parse_tasks(PREEMPTED)})
    assert stands(one, ask(one, unsettled)).phase is Phase.WAITING


def test_an_old_incarnation_undoes_no_newer_one(fake: Slurm) -> None:
    """With squeue failing, sacct may still show how the last incarnation ended: the one that runs now runs on."""
    one = array(job="57")
    fake.answers("squeue", RUNNING_AGAIN)
    snapshot = ask(one)
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.answers("sacct", SACCT_PREEMPTED)
    shown = stands(one, ask(one, snapshot))
    assert (shown.phase, shown.restarts) == (Phase.RUNNING, 1)


def test_a_failed_squeue_is_no_evidence(fake: Slurm) -> None:
    """The last word stands, with since when and why nothing newer is known; sacct's word on an end counts."""
    one = array(job="57")
    fake.answers("squeue", RUNNING)
    before = ask(one)
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.answers("sacct", SACCT_RUNNING)
    after = ask(one, before)
    shown = stands(one, after)
    assert shown.phase is Phase.RUNNING
    assert shown.problem == "squeue failed: Unable to contact slurm controller (connect failure)"
    assert after.squeue.answered == before.squeue.answered
    assert after.squeue.asked != before.squeue.asked
    assert after.present == before.present
    fake.answers("sacct", SACCT_PREEMPTED)
    ended = ask(one, after)
    assert (stands(one, ended).phase, stands(one, ended).cause) == (Phase.ENDED, Cause.PREEMPTED)
    assert not settled(one, ended)  # the controller may be about to start it anew
    fake.answers("squeue", "")
    assert settled(one, ask(one, ended))


@pytest.fixture
def lab(fake: Slurm) -> Iterator[Slurm]:
    """Commands that speak to cluster lab."""
    (fake.folder / "scontrol").write_text("#!/bin/sh\necho 'ClusterName = lab'\n")
    (fake.folder / "scontrol").chmod(0o755)
    cluster_name.cache_clear()
    yield fake
    cluster_name.cache_clear()


def test_several_clusters_cost_one_squeue_and_their_numbers_are_told_apart(lab: Slurm) -> None:
    """The same number may be another job's elsewhere; a cluster that is left out with exit code 0 is not known of."""
    here, there = array(job="57"), array("t.bb.0", job="57", clusters="other")
    elsewhere = RUNNING.replace("RUNNING", "PENDING").replace("t.aa.1", "t.bb.0")
    listed = f"CLUSTER: lab\n{HEADERS['squeue']}\n{RUNNING}\n"
    (lab.folder / "squeue.text").write_text(f"{listed}CLUSTER: other\n{HEADERS['squeue']}\n{elsewhere}\n")
    before = ask([here, there])
    [called] = lab.calls()
    assert called.startswith("squeue --clusters=lab,other -a ")
    assert [stands(one, before).phase for one in (here, there)] == [Phase.RUNNING, Phase.WAITING]
    (lab.folder / "squeue.text").write_text(listed)
    after = ask([here, there], before)
    assert stands(there, after).phase is Phase.WAITING
    assert stands(there, after).problem == "squeue failed: it printed nothing of cluster other"
    assert any(call.startswith("sacct -a -P") and "--clusters=lab,other" in call for call in lab.calls())
    ask(here)
    assert not any("clusters" in call for call in lab.calls()), "without need nobody needs accounting"


def test_both_failing_leave_all_as_it_was(fake: Slurm) -> None:
    """Rows, presence and the times of the last answers stay; each failure has its sentence."""
    one = array(job="57")
    fake.answers("squeue", RUNNING)
    before = ask(one)
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.fails("sacct", DATABASE_DOWN)
    after = ask(one, before)
    assert (after.tasks, after.present) == (before.tasks, before.present)
    assert after.sacct.problem == "sacct failed: Problem talking to the database: Connection refused"
    shown = stands(one, after)
    assert (shown.phase, shown.known) == (Phase.RUNNING, before.tasks["t.aa.1"][0].seen)
    unseen = stands(array("never.seen"), after)
    assert (unseen.phase, unseen.gone) == (Phase.UNKNOWN, False)
    assert unseen.problem


def test_a_query_that_answers_again_takes_its_problem_back(fake: Slurm) -> None:
    """Yesterday's failure is not shown beside today's answer."""
    one = array(job="57")
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.fails("sacct", DATABASE_DOWN)
    snapshot = ask(one)
    assert snapshot.squeue.problem
    assert snapshot.sacct.problem
    fake.answers("squeue", RUNNING)
    snapshot = ask(one, snapshot)
    assert (snapshot.squeue.problem, snapshot.sacct.problem) == (None, None)


def test_without_accounting_squeue_settles_everything(fake: Slurm) -> None:
    """Accounting off is no problem: squeue's terminal row is the last word, and a job it forgot is gone."""
    fake.fails("sacct", ACCOUNTING_OFF)
    one = array(tasks=2, job="57")
    fake.answers("squeue", f"{PREEMPTED}\n{RUNNING.replace('57|0', '57|1')}")
    snapshot = ask(one)
    assert (snapshot.sacct.disabled, snapshot.sacct.problem) == (True, None)
    fake.answers("squeue", PREEMPTED)
    snapshot = ask(one, snapshot)
    assert (stands(one, snapshot).cause, stands(one, snapshot).problem) == (Cause.PREEMPTED, None)
    lost = stands(one, snapshot, 1)
    assert (lost.phase, lost.gone, lost.cause, lost.id) == (Phase.ENDED, True, None, "57_1")
    log = "slurmstepd: error: *** JOB 57 ON v100-2 CANCELLED AT 2026-11-23T00:06:57 DUE TO TIME LIMIT ***\n"
    told = stands(one, snapshot, 1, log)
    assert (told.phase, told.gone, told.cause) == (Phase.ENDED, False, Cause.TIMEOUT)
    assert settled(array(tasks=1), snapshot)
    assert not settled(one, snapshot)


def test_a_job_nobody_knows_is_gone_only_when_both_answered(fake: Slurm) -> None:
    """Gone takes squeue's answer, long enough after sbatch, and accounting's; until then it is unknown."""
    old, young = array(job="57"), array(job="57", age_s=5)
    fake.fails("sacct", DATABASE_DOWN)
    snapshot = ask(old)
    assert stands(old, snapshot).phase is Phase.UNKNOWN
    assert stands(old, snapshot).problem == snapshot.sacct.problem
    fake.answers("sacct", "")
    snapshot = ask(old, snapshot)
    assert (stands(old, snapshot).phase, stands(old, snapshot).gone) == (Phase.ENDED, True)
    assert (stands(young, snapshot).phase, stands(young, snapshot).gone) == (Phase.UNKNOWN, False)


def test_a_job_that_left_the_queue_is_ended_before_accounting_says_so(fake: Slurm) -> None:
    """squeue has the last word on what lives: sacct's RUNNING is then only old, or accounting silent."""
    one = array(job="57")
    fake.answers("squeue", RUNNING)
    before = ask(one)
    fake.answers("squeue", "")
    fake.answers("sacct", SACCT_RUNNING)
    late = stands(one, ask(one, before))
    assert (late.phase, late.cause, late.gone, late.cancelled) == (Phase.ENDED, None, False, False)
    assert "does not say yet" in (late.message or "")
    fake.fails("sacct", DATABASE_DOWN)
    silent = stands(one, ask(one, before))
    assert (silent.phase, silent.cause, silent.gone) == (Phase.ENDED, None, False)
    assert "Connection refused" in (silent.problem or "")
    fake.answers("sacct", "")
    assert stands(one, ask(one, before)).gone


def test_reused_ids_are_not_ours(fake: Slurm) -> None:
    """After a wipe another job has our number: its rows are dropped, however its steps are named."""
    one = array(job="57")
    fake.answers("sacct", SACCT_PREEMPTED.replace("t.aa.1", "other"))
    snapshot = ask(one)
    assert snapshot.tasks == {}
    assert stands(one, snapshot).gone


def test_a_waiting_task_that_was_cancelled_is_cancelled(fake: Slurm) -> None:
    """Measured: scancel 19_2 leaves squeue without the task, and sacct with 19_[0-3%2] pending as before."""
    one = array(tasks=4, job="19")
    fake.answers("squeue", "\n".join(HELD.format(index) for index in range(4)))
    before = ask(one)
    fake.answers("squeue", "\n".join(HELD.format(index) for index in (0, 1, 3)))
    fake.answers("sacct", SACCT_HELD)
    snapshot = ask(one, before)
    dropped = stands(one, snapshot, 2)
    assert (dropped.phase, dropped.cancelled, dropped.gone) == (Phase.ENDED, True, False)
    assert snapshot.present["t.aa.1"] == [0, 1, 3]
    waiting = stands(one, snapshot, 3)
    assert (waiting.phase, waiting.id, waiting.restarts) == (Phase.WAITING, "19_3", 0)
    assert "'scontrol release 19_3'" in (waiting.message or "")


def test_an_array_cancelled_while_it_waited_is_one_row(fake: Slurm) -> None:
    """sacct's one CANCELLED row speaks for every task of the array."""
    one = array(tasks=2, job="21")
    fake.answers(
        "sacct",
        "21_[0-1]|CANCELLED by 0|0:0|0:0|None assigned|1795392336|None|1795392601|PartitionTimeLimit|t.aa.1",
    )
    snapshot = ask(one)
    assert settled(one, snapshot)
    for index in range(2):
        shown = stands(one, snapshot, index)
        assert (shown.id, shown.cancelled, shown.message) == (f"21_{index}", True, "was cancelled by root")


@pytest.mark.parametrize("range_row", [SACCT_HELD, TRUNCATED])
def test_with_squeue_failing_a_range_speaks_for_the_rest(fake: Slurm, range_row: str) -> None:
    """Tasks with a row of their own keep it; every other waits, also where sacct cut its brackets short."""
    job = range_row.partition("_")[0]
    one = array(tasks=4, job=job)
    fake.fails("squeue", CONTROLLER_DOWN)
    fake.answers("sacct", f"{SACCT_RUNNING.replace('57_0', f'{job}_1')}\n{range_row}")
    snapshot = ask(one)
    assert [stands(one, snapshot, index).phase for index in range(4)] == [
        Phase.WAITING,
        Phase.RUNNING,
        Phase.WAITING,
        Phase.WAITING,
    ]
    assert stands(one, snapshot, 3).id == f"{job}_3"
    assert not settled(one, snapshot)


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("RUNNING", Phase.RUNNING),
        ("COMPLETING", Phase.RUNNING),
        ("STAGE_OUT", Phase.RUNNING),
        ("SIGNALING", Phase.RUNNING),
        ("CONFIGURING", Phase.WAITING),
        ("SUSPENDED", Phase.WAITING),
        ("REQUEUE_HOLD", Phase.WAITING),
        ("SPECIAL_EXIT", Phase.WAITING),
        ("NODE_FAIL", Phase.ENDED),
        ("COMPLETED", Phase.ENDED),
        ("CANCELLED", Phase.ENDED),
        ("BOOT_FAIL", Phase.ENDED),
    ],
)
def test_every_state_has_its_phase(fake: Slurm, state: str, phase: Phase) -> None:
    """Whatever word Slurm uses."""
    one = array(job="57")
    fake.answers("squeue", RUNNING.replace("RUNNING", state))
    assert stands(one, ask(one)).phase is phase


def test_a_wait_that_never_ends_says_so(fake: Slurm) -> None:
    """PartitionNodeLimit looks like any other wait in squeue."""
    one = array(job="34")
    fake.answers("squeue", "34|0|PENDING|PartitionNodeLimit||0|1795392387|N/A|N/A|0|0|t.aa.1")
    shown = stands(one, ask(one))
    assert (shown.phase, shown.problem) == (Phase.WAITING, None)
    assert "for ever" in (shown.message or "")
    assert "PartitionNodeLimit" in (shown.message or "")


def test_what_slurm_refused_has_ended() -> None:
    """No query is needed, and its words are shown."""
    refused = array().model_copy(update={"refused": "Invalid account"})
    shown = stands(refused, Snapshot())
    assert (shown.phase, shown.cause) == (Phase.ENDED, Cause.LAUNCH_FAILED)
    assert "Invalid account" in (shown.message or "")
    assert stands(array().model_copy(update={"asked": None}), Snapshot()).phase is Phase.UNKNOWN


def test_the_log_is_read_only_of_what_may_have_ended(fake: Slurm) -> None:
    """Logs lie on a slow shared disk: 10,000 running tasks open none."""
    one = array(job="57")
    read: list[str] = []
    tail: Callable[[TaskRow], str] = lambda row: read.append(row.job) or ""  # noqa: E731
    fake.answers("squeue", RUNNING)
    snapshot = ask(one)
    view(one, 0, snapshot, tail)
    assert read == []
    fake.answers("squeue", PREEMPTED.replace("PREEMPTED", "FAILED"))
    view(one, 0, ask(one, snapshot), tail)
    assert read == ["57_0"]


@pytest.mark.slow
def test_the_cost_of_a_refresh_grows_with_the_tasks_and_no_faster(fake: Slurm) -> None:
    """With a row of squeue and three of sacct a task, ten times as many are far from a hundred times the work."""

    def cost_s(size: int) -> float:
        one = array(tasks=size, job="57")
        fake.answers("squeue", "\n".join(PREEMPTED.replace("57|0", f"57|{index}") for index in range(size)))
        fake.answers("sacct", "\n".join(SACCT_PREEMPTED.replace("57_0", f"57_{index}") for index in range(size)))
        begin = time.process_time()
        assert settled(one, ask(one))
        return time.process_time() - begin

    cost_s(1_000)  # what is only slow the first time
    assert cost_s(10_000) < 40 * cost_s(1_000)


def parse_tasks(text: str) -> dict[str, dict[int, TaskRow]]:
    return parse_squeue(text, ["t.aa.1"], SEEN)


def test_a_waiting_task_that_neither_list_has_any_more_was_cancelled(fake: Slurm) -> None:
    """Accounting never had a row of it: squeue showed it wait, and what starts has a row. Without accounting: gone."""
    one = array(tasks=2, job="19")
    fake.answers("squeue", "\n".join(HELD.format(index) for index in range(2)))
    before = ask(one)
    fake.answers("squeue", HELD.format(0))
    fake.answers("sacct", SACCT_HELD.replace("0-3%2", "0"))
    after = ask(one, before)
    cancelled = stands(one, after, 1)
    assert (cancelled.phase, cancelled.cancelled, cancelled.gone) == (Phase.ENDED, True, True)
    assert stands(one, after, 0).phase is Phase.WAITING
    fake.fails("sacct", ACCOUNTING_OFF)
    gone = stands(one, ask(one, before), 1)
    assert (gone.gone, gone.cancelled) == (True, False)
    fake.fails("sacct", DATABASE_DOWN)
    assert not stands(one, ask(one, before), 1).gone


SHOWN = "JobId={} ArrayJobId=11 ArrayTaskId={} JobName={} UserId=root(0)"


@pytest.mark.parametrize(
    ("script", "there"),
    [
        (f"echo '{SHOWN.format(11, '3-4%5', 't.aa.1')}'; echo '{SHOWN.format(12, '0', 't.aa.1')}'", {0, 3, 4}),
        (f"echo '{SHOWN.format(11, '0-4', 'other')}'", set()),
        (f"echo '{SHOWN.format(11, '0,2,...', 't.aa.1')}'", {0, 1, 2, 3, 4}),
        ("echo 'Job 11 not found'; exit 1", set()),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", set()),
    ],
    ids=["some tasks", "another's job by now", "a list cut short", "not found", "an old number"],
)
def test_the_tasks_of_an_array_that_scontrol_shows(fake: Slurm, script: str, there: set[int]) -> None:
    path = fake.folder / "scontrol"
    path.write_text(f'#!/bin/sh\n[ "$2" != config ] || {{ echo "ClusterName = c"; exit; }}\n{script}\n')
    path.chmod(0o755)
    assert tasks_there(None, array(tasks=5, job="11"), "11") == there

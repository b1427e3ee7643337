"""Submitted exactly once: whatever befalls a submission to a real cluster, no run is queued twice, none is forgotten.

Faults come from outside the product: an `sbatch` before the real one on PATH, and a SIGKILL just before a file is moved
to its name, by an audit hook in a sitecustomize.py. Nodes are drained where only the queue is looked at.
"""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPOSITORY, Command, read, wait_for
from slurm_fixtures import slurm_file, states, wait_for_state

from slurm.private_cluster.cluster import PrivateCluster
from slurm.timeouts import SETTLE_S
from trainer.records.base import now

THESIS = REPOSITORY / "configs" / "thesis.yaml"
ALL, EACH = 156, 52  # runs, and runs in each of the three arrays
RUN = "small-cifar10-r1.0-s1"

# sbatch's parent is the `timeout` it is called with, whose parent is the submitting process.
WRAPPER = """#!/bin/sh
echo >> "{folder}/calls"
sweep=$(cut -d' ' -f4 /proc/$PPID/stat)
real() {{ {real} "$@"; }}
if [ $(wc -l < "{folder}/calls") = {call} ]; then {fault}; exit; fi
real "$@"
"""
LEFT = "nothing to submit: 156 queued"
KILLED_FIRST = "kill -9 $sweep"
KILLED_AFTER = 'real "$@" > /dev/null; kill -9 $sweep'
KILLED_AND_OUTLIVED = "kill -9 $sweep; trap '' TERM; sleep 33; " + 'real "$@"'
FAILS = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"
FAILS_BUT_TAKEN = f'real "$@" > /dev/null; {FAILS}'
SILENT = "exit 0"
SILENT_BUT_TAKEN = 'real "$@" > /dev/null'
HANGS = "exec sleep 1000"
INVALID = "Invalid account or account/partition combination specified"
REFUSES = f"echo 'sbatch: error: Batch job submission failed: {INVALID}' >&2; exit 1"

BUDGET = "Your project is over budget; ask for more at https://example.org"

HOOK = """
import os, pathlib, signal, sys, time
seen = 0
def hook(event, arguments):
    global seen
    if event == {event!r} and str(arguments[1]).endswith({target!r}):
        seen += 1
        if seen == {number}:
            {action}
sys.addaudithook(hook)
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"

Fault = Callable[[Path], dict[str, str]]  # written into a folder, it gives the environment that it acts in


def sbatch(fault: str, call: int = 1) -> Fault:
    """Put a fault in the place of one call of sbatch."""

    def write(folder: Path) -> dict[str, str]:
        text = WRAPPER.format(folder=folder, real=shutil.which("sbatch"), call=call, fault=fault)
        return _on_path(folder, "sbatch", text)

    return write


def before(event: str, target: str, number: int = 1, action: str = DIE) -> Fault:
    """Kill the process, or do something else, just before it gives a file its name, for the n-th time."""

    def write(folder: Path) -> dict[str, str]:
        text = HOOK.format(event=event, target=target, number=number, action=action)
        (folder / "sitecustomize.py").write_text(text)
        return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}

    return write


def _on_path(folder: Path, name: str, script: str) -> dict[str, str]:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def start(command: Command, fault: Fault, *arguments: object) -> "subprocess.Popen[str]":
    """Start `sweep submit` with a fault that the commands after it have not."""
    folder = command.folder / f"fault-{len(command.started)}"
    folder.mkdir()
    whole = command.environment
    command.environment = {**whole, **fault(folder)}
    process = command.start("submit", *arguments, "--yes")
    command.environment = whole
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process; give its exit code and what it said."""
    _, stderr = process.communicate(timeout=100)
    return process.returncode, stderr


@pytest.fixture
def drained(slurm: PrivateCluster) -> PrivateCluster:
    """A cluster on which nothing starts."""
    slurm.run("scontrol", "update", f"nodename={','.join(slurm.nodes())}", "state=drain", "reason=test")
    return slurm


class Study(NamedTuple):
    """A sweep's file and options for the command line, and the folder it writes to."""

    call: tuple[object, ...]
    folder: Path

    def counts(self, command: Command) -> dict[str, int]:
        """Return what `sweep status` counts."""
        return dict(command.json("status", *self.call)["counts"])

    def submit(self, command: Command, *, expect: int = 0) -> str:
        """Submit without a fault; give what was said."""
        return command("submit", *self.call, "--yes", expect=expect).stderr

    def in_queue(self, cluster: PrivateCluster) -> Counter[str]:
        """Count how often each run is in the queue; no job may be there that was given up and would not work on it."""
        tasks = {}
        given_up = set()
        for path in self.folder.glob("submissions/*.json"):
            for number, array in enumerate(read(path)["arrays"]):
                tasks[array["tag"]] = array["tasks"]
                if (path.with_suffix("") / str(number) / "withdrawn.json").exists():
                    given_up.add(array["tag"])
        queued = [row.split() for row in cluster.run("squeue", "-h", "-r", "-o", "%K %j").splitlines()]
        assert not given_up & {tag for _, tag in queued}
        return Counter(run for index, tag in queued if tag in tasks for run in tasks[tag][int(index)])

    def assert_queued_once(self, cluster: PrivateCluster) -> None:
        """Hold the queue to every run of the plan, once."""
        planned = [run["run"]["id"] for run in read(self.folder / "plan.json")["runs"]]
        assert self.in_queue(cluster) == Counter(planned)


@pytest.fixture
def study(thesis_data: Path, tmp_path: Path) -> Callable[[str], Study]:
    """Return the thesis's sweep of 156 runs in three arrays, writing to a folder of the given name."""
    return lambda name: Study((THESIS, "--data", thesis_data, "--output", name), tmp_path / name / "thesis")


class Step(NamedTuple):
    """What befalls a submission, its exit code then, how many runs Slurm has, and what is said."""

    fault: Fault
    code: int
    taken: int
    words: str = ""


INTENT = "-0001.json"
STEPS = {
    "killed before anything": Step(before("os.link", "submissions/word"), -9, 0),
    "killed before the intent": Step(before("os.link", INTENT), -9, 0),
    "killed after the intent": Step(before("os.rename", "plan.json"), -9, 0),
    "killed between two bundles": Step(before("os.rename", "1/bundle.json"), -9, 0),
    "killed before the first sbatch": Step(before("os.rename", INTENT, 1), -9, 0),
    "killed while sbatch runs": Step(sbatch(KILLED_AFTER), -9, EACH),
    "killed before an answer is noted": Step(before("os.rename", INTENT, 2), -9, EACH),
    "killed between two arrays": Step(before("os.rename", INTENT, 3), -9, EACH),
    "killed while the second sbatch runs": Step(sbatch(KILLED_AFTER, 2), -9, 2 * EACH),
    "killed before the last answer is noted": Step(before("os.rename", INTENT, 6), -9, ALL),
    "accepted, but sbatch fails": Step(
        sbatch(FAILS_BUT_TAKEN), 1, EACH, "no clear answer about 52 runs: Batch job sub"
    ),
    "accepted, but sbatch is silent": Step(sbatch(SILENT_BUT_TAKEN), 1, EACH, "without naming a job"),
    "one is refused": Step(
        sbatch(REFUSES, 2), 1, 2 * EACH, f"refused {EACH} runs: Batch job submission failed: {INVALID}"
    ),
    "one is refused in a site's own words": Step(
        sbatch(f"echo '{BUDGET}'; exit 9", 2), 1, 2 * EACH, f"refused {EACH} runs: {BUDGET}"
    ),
    "accepted, in a site's own words of refusal": Step(
        sbatch(f"real \"$@\" > /dev/null; echo '{BUDGET}' >&2; exit 1"), 1, EACH, "has the jobs all the same"
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_submission_cut_off_at_any_step_is_completed_at_once(
    drained: PrivateCluster, on_slurm: Command, study: Callable[[str], Study], step: Step
) -> None:
    """What Slurm has is found by its tag, `status` tells it, and the next `submit` sends the rest and only that."""
    thesis = study("runs")
    code, said = ended(start(on_slurm, step.fault, *thesis.call))
    assert code == step.code, said
    assert step.words in said
    left = ALL - step.taken
    expected = {"queued": step.taken, "planned": left}
    assert thesis.counts(on_slurm) == {state: count for state, count in expected.items() if count}
    said = thesis.submit(on_slurm)
    assert (f"will submit {left} runs" if left else f"nothing to submit: {ALL} queued") in said
    assert "not confirmed" not in said
    thesis.assert_queued_once(drained)


def test_a_submitter_killed_after_the_last_sbatch_leaves_a_whole_submission(
    drained: PrivateCluster, on_slurm: Command, study: Callable[[str], Study]
) -> None:
    """The shell that waits for its jobs may be killed at any time."""
    thesis = study("runs")
    process = on_slurm.start("submit", *thesis.call, "--yes", "--wait")
    assert process.stderr is not None
    assert any("submitted" in line for line in process.stderr)
    process.kill()
    assert ended(process)[0] == -9
    assert thesis.counts(on_slurm) == {"queued": ALL}
    assert "nothing to submit: 156 queued" in thesis.submit(on_slurm)
    thesis.assert_queued_once(drained)


UNCLEAR = {"hangs": HANGS, "outlived": KILLED_AND_OUTLIVED, "killed": KILLED_FIRST, "fails": FAILS, "silent": SILENT}


def test_an_array_slurm_may_have_waits_until_that_is_known(
    drained: PrivateCluster, on_slurm: Command, study: Callable[[str], Study]
) -> None:
    """An sbatch cut off, failed, silent or hung was perhaps accepted: its runs are called queued and not confirmed,
    and sent again only after SETTLE_S; not at all where an sbatch that outlived its submitter was accepted late.
    """
    studies = {name: study(name) for name in UNCLEAR}
    processes = {}
    for name, fault in UNCLEAR.items():
        processes[name] = start(on_slurm, sbatch(fault), *studies[name].call)
        if name == "hangs":
            wait_for(lambda: any(_asked(studies["hangs"].folder)), "the sbatch that hangs")
            assert "is not confirmed: it is being submitted" in studies["hangs"].submit(on_slurm)
            continue
        code, said = ended(processes[name])
        assert code == (1 if name in ("fails", "silent") else -9), said
        assert (f"pool 'v100-16gb': Slurm gave no clear answer about {EACH} runs" in said) == (code == 1)
        said = studies[name].submit(on_slurm)
        assert f"will submit {ALL - EACH} runs" in said
        assert f"{EACH} runs wait: thesis." in said
        assert "is not confirmed: sbatch gave no clear answer; known in" in said
        assert studies[name].counts(on_slurm) == {"queued": ALL}
    code, said = ended(processes["hangs"])
    assert (code, "sbatch did not answer within 30 s" in said) == (1, True), said

    while "is not confirmed" in studies["outlived"].submit(on_slurm):
        time.sleep(0.5)
    studies.pop("outlived").assert_queued_once(drained)
    for name, thesis in studies.items():
        time.sleep(max(0.0, SETTLE_S - (now() - min(_asked(thesis.folder))).total_seconds()))
        assert f"will submit {ALL if name == 'hangs' else EACH} runs" in thesis.submit(on_slurm)
        thesis.assert_queued_once(drained)


def _asked(folder: Path) -> list[datetime]:
    """Return when sbatch was called for each array of a sweep, so far."""
    arrays = [array for path in folder.glob("submissions/*.json") for array in read(path)["arrays"]]
    return [datetime.fromisoformat(array["asked"]) for array in arrays if array["asked"]]


def test_a_controller_that_hangs_during_sbatch_takes_the_job_once(
    drained: PrivateCluster, on_slurm: Command, study: Callable[[str], Study]
) -> None:
    """The sbatch that timed out is accepted later: adopted, not sent again; meanwhile no run is called failed."""
    thesis = study("runs")
    controller = drained.daemons()["slurmctld"]
    assert controller is not None
    hang = sbatch(f'kill -STOP {controller.pid}; real "$@"', 2)
    code, said = ended(start(on_slurm, hang, *thesis.call))
    assert code == 1
    assert f"pool 'p100-12gb': Slurm gave no clear answer about {EACH} runs: " in said
    assert "timed out" in said

    status = on_slurm("status", *thesis.call)
    assert Counter(line.split("\t")[1] for line in status.stdout.splitlines()) == {"queued": 2 * EACH, "planned": EACH}
    assert status.stdout.count("is not confirmed: sbatch gave no clear answer") == EACH
    assert "squeue does not answer" in status.stderr
    assert "Slurm does not answer, nothing was submitted" in thesis.submit(on_slurm, expect=1)

    drained.resume("slurmctld")
    wait_for(lambda: thesis.in_queue(drained).total() == 2 * EACH, "the job that was accepted after all", 30)
    assert thesis.counts(on_slurm) == {"queued": 2 * EACH, "planned": EACH}
    assert f"will submit {EACH} runs" in thesis.submit(on_slurm)
    thesis.assert_queued_once(drained)


MEET = """
            open("meeting/" + str(os.getpid()), "w").close()
            while len(os.listdir("meeting")) < 2: time.sleep(0.01)
"""


@pytest.mark.parametrize("delay_s", [None, 0.0, 0.3])
def test_two_who_submit_at_once_queue_every_run_once(
    drained: PrivateCluster, on_slurm: Command, study: Callable[[str], Study], tmp_path: Path, delay_s: float | None
) -> None:
    """One of them submits, the other finds nothing left to submit. None: both have chosen, and write their intents at
    the same moment; else the second starts so much later.
    """
    thesis = study("runs")
    (tmp_path / "meeting").mkdir()
    fault = before("os.link", INTENT, action=MEET) if delay_s is None else sbatch('sleep 0.3; real "$@"')
    first = start(on_slurm, fault, *thesis.call)
    time.sleep(delay_s or 0.0)
    second = start(on_slurm, fault, *thesis.call)
    # The one that found nothing left says so, in the end.
    (other_code, other_said), (code, said) = sorted([ended(first), ended(second)], key=lambda end: LEFT not in end[1])
    assert (code, other_code) == (0, 0), other_said
    assert "in 3 arrays" in said
    assert LEFT in other_said
    assert LEFT not in said
    assert "someone else submitted at this moment" in other_said or delay_s is not None
    thesis.assert_queued_once(drained)


def test_a_submission_that_ends_while_another_looks_is_not_taken_for_cut_off(
    drained: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """The second reads the first's record before it is whole, and by the time it judges it the first has ended: its
    arrays are neither sent again nor given up.
    """
    rules = [{"when": {"seed": 1}, "pool": "v100"}, {"when": {"seed": 2}, "pool": "p100"}, {"pool": "cpu"}]
    studies = []
    for name, seeds in (("two", (1, 2)), ("three", (1, 2, 3))):
        (tmp_path / name).mkdir()
        file = slurm_file(tmp_path / name, data, seeds=seeds, assign=rules)
        studies.append(Study((file, "--output", "runs"), tmp_path / "runs" / "study"))
    two, three = studies
    go = tmp_path / "go"
    waiting = f'until [ -e "{go}" ]; do sleep 0.05; done; real "$@"'
    first = start(on_slurm, sbatch(waiting), *two.call)
    wait_for(lambda: any(_asked(two.folder)), "the first to call sbatch")
    squeue = f"""#!/bin/sh
        touch "{go}"
        while kill -0 {first.pid}; do sleep 0.05; done
        exec {shutil.which("squeue")} "$@"
    """
    second = start(on_slurm, lambda folder: _on_path(folder, "squeue", squeue), *three.call)
    assert ended(first)[0] == 0
    code, said = ended(second)
    assert (code, "will submit 1 runs" in said) == (0, True), said
    assert three.counts(on_slurm) == {"queued": 3}
    three.assert_queued_once(drained)


def _drain(cluster: PrivateCluster, node: str) -> None:
    cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")


def test_a_job_that_comes_to_light_after_its_array_was_given_up_does_no_work(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Slurm denied it for long enough, so its run went into another array, and only that one executes it."""
    file = slurm_file(tmp_path, data)
    study = Study((file,), tmp_path / "runs" / "study")
    _drain(slurm, "cpu-1")
    assert ended(start(on_slurm, sbatch(FAILS), file))[0] == 1
    [intent] = study.folder.glob("submissions/*.json")
    record = read(intent)
    record["arrays"][0]["asked"] = (min(_asked(study.folder)) - timedelta(seconds=SETTLE_S)).isoformat()
    del record["sha256"]
    intent.write_text(json.dumps(record))  # as it would be SETTLE_S later
    assert "will submit 1 runs" in study.submit(on_slurm)

    folder = intent.with_suffix("") / "0"
    [script] = folder.glob(".submission_file_*.sh")
    late = slurm.run("sbatch", "--parsable", "-p", "p100", str(script)).strip()
    log = folder / f"{late}_0_0_log.out"
    wait_for(lambda: late not in slurm.run("squeue", "-h", "-o", "%F").split(), "the late job to end")
    assert "this array was given up before it began" in log.read_text()
    assert not list(study.folder.glob("runs/*/attempts/*.json"))
    assert states(on_slurm, file)[RUN]["state"] == "queued"
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=resume")
    wait_for_state(on_slurm, file, RUN, "done")
    [attempt] = study.folder.glob("runs/*/attempts/*.json")
    assert read(attempt)["submission"] != record["token"]


def test_a_run_in_two_jobs_is_executed_by_one(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Were an array accepted twice after all, the jobs that start at the same moment agree: one stands back."""
    file = slurm_file(tmp_path, data, epochs=60)  # not over when the second job begins
    folder = tmp_path / "runs" / "study"
    _drain(slurm, "cpu-1")
    on_slurm("submit", file, "--yes")
    [script] = folder.glob("submissions/*/0/*_submission.sh")
    slurm.run("sbatch", str(script))
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=resume")
    wait_for(lambda: not slurm.run("squeue", "-h"), "both jobs to end")
    assert states(on_slurm, file)[RUN]["state"] == "done"
    assert [path.name for path in folder.glob("runs/*/attempts/*.json")] == ["0001.json"]
    logs = [path.read_text() for path in folder.glob("submissions/*/0/*_log.out")]
    assert sum("epoch 60/60" in log for log in logs) == 1
    back = ("has had its attempt in this submission", "was taken by another process at this moment")
    assert sum(any(words in log for words in back) for log in logs) == 1


def test_the_script_that_is_shown_is_the_one_that_is_sent(
    on_slurm: Command, drained: PrivateCluster, data: Path, tmp_path: Path
) -> None:
    """Word for word as it lies beside the jobs' output, one an array; a dry run shows it and writes nothing, so before
    a first submission without the word that this draws.
    """
    rules = [{"when": {"seed": 3}, "pool": "p100"}, {"pool": "cpu"}]
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), assign=rules, max_parallel=2)
    folder = tmp_path / "runs" / "study" / "submissions"
    dry = on_slurm("submit", file, "--dry-run", "--show-script").stdout
    assert not (tmp_path / "runs").exists()
    shown = on_slurm("submit", file, "--yes", "--show-script").stdout
    assert shown == _sent(folder, "0001")
    assert "#SBATCH --array=0-1%2\n" in shown
    token = f"{(folder / 'word').read_text()}-0001"
    assert dry.replace("study.WORD-0001.", f"study.{token}.").replace("/WORD-0001/", f"/{token}/") == shown

    on_slurm("cancel", file, "--yes")
    again = on_slurm("retry", file, RUN, "--dry-run", "--show-script").stdout
    assert on_slurm("retry", file, RUN, "--yes", "--show-script").stdout == again == _sent(folder, "0002")


def _sent(folder: Path, number: str) -> str:
    """Read the scripts that a submission's arrays left behind, in their order."""
    scripts = sorted(folder.glob(f"*-{number}/*/*_submission.sh"), key=lambda path: path.parent.name)
    return "\n".join(path.read_text() for path in scripts)

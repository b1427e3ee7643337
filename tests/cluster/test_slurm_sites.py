"""What other people's shells and sites do to Slurm's commands changes nothing of what a sweep comes to."""

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import stand_in_apptainer
from conftest import REPOSITORY, Command, read, wait_for
from slurm_fixtures import LONG, slurm_file, states, wait_for_state
from slurm_runs import by_seed, folder_of, trainer_of

from slurm.jobs import Submission
from slurm.private_cluster.cluster import PrivateCluster
from slurm.submission import cancel
from trainer.records.files import read_json, write_json

RUN = "small-cifar10-r1.0-s1"
# Each would beat a line of the job script, or filter and reshape what is listed.
SETTINGS = {
    "SBATCH_TIMELIMIT": "0:01",
    "SBATCH_PARTITION": "p100",
    "SBATCH_ARRAY_INX": "5-9",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_GRES": "gpu:p100:1",
    "SBATCH_HOLD": "1",
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_OUTPUT": "/nowhere/%j",
    "SQUEUE_STATES": "COMPLETED",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_PARTITION": "p100",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_NAMES": "other",
    "SACCT_FORMAT": "JobID",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_CLUSTERS": "elsewhere",
    "SCANCEL_USER": "nobody",
    "SCONTROL_ALL": "1",
    "LC_ALL": "de_DE.UTF-8",
}


@pytest.fixture
def in_a_shell(slurm: PrivateCluster, tmp_path: Path) -> Command:
    """`python -m sweep` in a shell whose user has set all of these."""
    return Command("sweep", tmp_path, {**slurm.environment, **SETTINGS})


def commands(tmp_path: Path, slurm: PrivateCluster, **scripts: str) -> dict[str, str]:
    """Put commands of a site before Slurm's own; REAL in a script is Slurm's. Return the environment."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script.replace('REAL', str(shutil.which(name)))}\n")
        (folder / name).chmod(0o755)
    return {**slurm.environment, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_settings_of_a_user_s_shell_change_nothing(in_a_shell: Command, data: Path, tmp_path: Path) -> None:
    """Submitted where the sweep says, with the time it says, seen and counted, and cancelled."""
    file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=LONG)
    try:
        in_a_shell("submit", file, "--yes")
        wait_for(lambda: {run["state"] for run in states(in_a_shell, file).values()} == {"running"}, "both runs")
        assert {run["node"] for run in states(in_a_shell, file).values()} == {"cpu-1"}
        in_a_shell("cancel", file, "--yes")
        wait_for(lambda: {run["state"] for run in states(in_a_shell, file).values()} == {"cancelled"}, "their end")
    finally:
        in_a_shell.end()


def test_a_sweep_submitted_from_inside_a_job_nests_nothing(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """From an allocation of its own size, as from a notebook's kernel: the jobs are the sweep's, and end well."""
    file = slurm_file(tmp_path, data, seeds=(1, 2))
    inside = [
        "sbatch", "--wait", "--partition=p100", "--gres=gpu:p100:1", "--cpus-per-task=3", "--mem-per-cpu=700",
        "--array=4", "--ntasks=2", "--time=5", f"--output={tmp_path}/outer", f"--chdir={tmp_path}",
        f"--wrap=PYTHONPATH={REPOSITORY} {sys.executable} -m sweep submit {file} --yes",
    ]  # fmt: skip
    slurm.run(*inside, timeout_s=90)
    assert "submitted 2 jobs in 1 arrays" in (tmp_path / "outer").read_text()
    found = [wait_for_state(on_slurm, file, run_id, "done", "failed") for run_id in states(on_slurm, file)]
    assert {(run["state"], run["node"], run["message"]) for run in found} == {("done", "cpu-1", None)}


@pytest.mark.parametrize(
    "said",
    [
        "echo 'Welcome. Maintenance of job {stranger} is on Monday.'; REAL \"$@\"",
        "echo 'Submitted batch job {stranger}'; REAL \"$@\"; echo 'Submitted batch job {stranger}'",
        'REAL "$@"; echo {stranger}',
        "REAL \"$@\" | sed 's/$/;elsewhere/'; echo 'quota of job {stranger}: 3 of 5'",
    ],
    ids=["a notice before", "another's job in sbatch's own words", "a bare number after", "a cluster's name"],
)
def test_a_number_that_a_site_prints_is_not_taken_for_the_job(
    slurm: PrivateCluster, data: Path, tmp_path: Path, said: str
) -> None:
    """The job with that number is a stranger's, and lives on when the sweep is cancelled."""
    stranger = slurm.run("sbatch", "--parsable", "--partition=v100", "--output=/dev/null", "--wrap=sleep 600").strip()
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=drain", "reason=test")
    command = Command("sweep", tmp_path, commands(tmp_path, slurm, sbatch=said.format(stranger=stranger)))
    file = slurm_file(tmp_path, data)
    try:
        command("submit", file, "--yes")
        [submission] = (tmp_path / "runs" / "study" / "submissions").glob("*.json")
        assert read(submission)["arrays"][0]["job"] not in (None, stranger)
        assert states(command, file)[RUN]["state"] == "queued"
        command("cancel", file, "--yes")
        wait_for_state(command, file, RUN, "cancelled")
        assert slurm.run("squeue", "-h", "-j", stranger, "-o", "%T").strip() in ("RUNNING", "PENDING")
    finally:
        command.end()


def test_a_job_is_cancelled_by_name_number_and_owner(slurm: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number alone may be another's by now: Slurm counts anew when its state is lost."""
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    job = slurm.run(
        "sbatch",
        "--parsable",
        "--partition=v100",
        "--array=0",
        "--job-name=mine",
        "--output=/dev/null",
        "--wrap=sleep 600",
    )
    cancel("another", [job.strip()])
    assert slurm.run("squeue", "-h", "-j", job.strip(), "-o", "%T").strip() in ("RUNNING", "PENDING")
    cancel("mine", [job.strip()])
    wait_for(lambda: not slurm.run("squeue", "-h", "-n", "mine", "-o", "%T").strip(), "its end")


def long_ago(tmp_path: Path) -> None:
    """Have the only submission's sbatch be called ten minutes ago."""
    [path] = (tmp_path / "runs" / "study" / "submissions").glob("*.json")
    submission = read_json(path, Submission)
    assert submission is not None
    [array] = submission.arrays
    assert array.asked is not None
    earlier = array.model_copy(update={"asked": array.asked - timedelta(minutes=10)})
    write_json(path, submission.model_copy(update={"arrays": [earlier]}))


HEADER_ALONE = 'REAL "$@" | head -n 1'
ANSWERS = {
    "nothing, with exit code 0": ("exit 0", "exit 0"),
    "another program of that name": ("echo 'squeue 3.1: prints queues'", "echo usage"),
    "the first lines alone": (HEADER_ALONE, HEADER_ALONE),
    "a line cut short": ('REAL "$@" | head -c 900', 'REAL "$@"'),
}


@pytest.mark.parametrize("answers", ANSWERS)
def test_a_list_without_a_job_does_not_make_it_lost(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path, answers: str
) -> None:
    """It waits for ten minutes by the record; nothing is submitted twice, and real answers find it where it was."""
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=drain", "reason=test")
    file = slurm_file(tmp_path, data)
    on_slurm("submit", file, "--yes")
    long_ago(tmp_path)
    (tmp_path / "runs" / "study" / "queue.json").unlink(missing_ok=True)
    squeue, sacct = ANSWERS[answers]
    command = Command("sweep", tmp_path, commands(tmp_path, slurm, squeue=squeue, sacct=sacct))
    try:
        found = states(command, file)[RUN]
        assert found["state"] == "queued", found
        assert "nothing to submit: 1 queued" in command("submit", file, "--yes").stderr
    finally:
        command.end()
    wait_for(lambda: states(on_slurm, file)[RUN]["problem"] is None, "answers that are lists", seconds=30)
    assert states(on_slurm, file)[RUN]["state"] == "queued"


def test_a_copied_folder_owns_no_jobs(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """Its runs stand as if never sent, with a word on whose the jobs are; cancelling there leaves them alone."""
    file = slurm_file(tmp_path, data, epochs=LONG)
    on_slurm("submit", file, "--yes")
    wait_for_state(on_slurm, file, RUN, "running")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "runs", copy / "runs", ignore=shutil.ignore_patterns("attempts", "progress.json"))
    shutil.copy(tmp_path / "cluster.yaml", copy)
    (copy / "study.yaml").write_text(file.read_text().replace(str(tmp_path / "runs"), str(copy / "runs")))
    said = on_slurm("status", copy / "study.yaml").stderr
    assert f"is a copy: its jobs work for {tmp_path / 'runs'}" in said.replace("\n", " ")
    assert states(on_slurm, copy / "study.yaml")[RUN]["state"] == "planned"
    assert "nothing to cancel" in on_slurm("cancel", copy / "study.yaml", "--yes", expect=0).stderr
    assert states(on_slurm, file)[RUN]["state"] == "running"


def test_a_folder_that_was_moved_keeps_its_jobs(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """Seen from its new place they are still its own, to be watched and cancelled."""
    file = slurm_file(tmp_path, data, epochs=LONG)
    on_slurm("submit", file, "--yes")
    wait_for_state(on_slurm, file, RUN, "running")
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    file.write_text(file.read_text().replace(str(tmp_path / "runs"), str(tmp_path / "moved")))
    assert states(on_slurm, file)[RUN]["state"] == "running"
    on_slurm("cancel", file, "--yes")
    assert wait_for_state(on_slurm, file, RUN, "cancelled", "failed")["state"] == "cancelled"


def test_a_job_s_environment_is_what_its_pool_says(slurm: PrivateCluster, data: Path, tmp_path: Path) -> None:
    """All, none or some of the submitter's variables, what the setup lines add, and never an outer job's."""
    lines = [f"export PYTHONPATH={REPOSITORY} ADDED=here"]
    bare = {"device": "cpu", "setup": lines}
    pools = {"all": bare, "none": {**bare, "export": "none"}, "some": {**bare, "export": ["MINE"]}}
    rules = [{"when": {"seed": seed}, "pool": name} for seed, name in enumerate(pools)]
    file = slurm_file(tmp_path, data, seeds=range(3), pools=pools, assign=rules, epochs=LONG)
    shell = {"MINE": "1", "OTHER": "1", "SLURM_JOB_ID": "77", "SLURM_OUTER": "1", "SBATCH_PARTITION": "p100"}
    command = Command("sweep", tmp_path, {**slurm.environment, **shell})
    try:
        command("submit", file, "--yes")
        folders = [folder_of(tmp_path, seed) for seed in range(3)]
        wait_for(lambda: all(trainer_of(folder) for folder in folders), "the runs to start", seconds=30)
        found = [psutil.Process(trainer_of(folder)).environ() for folder in folders]
        kept = [[name for name in ("MINE", "OTHER", "ADDED", "SLURM_OUTER") if name in its] for its in found]
        assert kept == [["MINE", "OTHER", "ADDED"], ["ADDED"], ["MINE", "ADDED"]]
        assert all(its["SLURM_JOB_ID"] != "77" and "SBATCH_PARTITION" not in its for its in found)
    finally:
        command.end()


def test_jobs_of_a_pool_on_another_cluster_are_sent_seen_and_cancelled_there(
    slurm: PrivateCluster, data: Path, tmp_path: Path
) -> None:
    """Every command names it; here the other cluster is this one, by its name. One that nobody knows is refused."""
    bare = {"device": "cpu", "partition": "cpu", "memory_gb": 2}
    pools = {"here": bare, "there": {**bare, "clusters": "home"}, "nowhere": {**bare, "clusters": "nowhere"}}
    known = {name: pools[name] for name in ("here", "there")}
    rules = [{"when": {"seed": 1}, "pool": "here"}, {"pool": "there"}]
    noted = {name: f'echo "{name} $@" >> {tmp_path}/calls; REAL "$@"' for name in ("squeue", "sacct", "scancel")}
    command = Command("sweep", tmp_path, commands(tmp_path, slurm, **noted))
    file = slurm_file(tmp_path, data, seeds=(1, 2), pools=pools, assign=rules, epochs=LONG)
    refused = command("submit", file, "--yes", expect=2).stderr
    assert "'nowhere' can't be reached now, or it is an invalid entry" in " ".join(refused.split())
    file = slurm_file(tmp_path, data, seeds=(1, 2), pools=known, assign=rules, epochs=LONG)
    try:
        command("submit", file, "--yes")
        [submission] = (tmp_path / "runs" / "study" / "submissions").glob("*.json")
        assert [array["resources"]["clusters"] for array in read(submission)["arrays"]] == [None, "home"]
        wait_for(lambda: {run["state"] for run in states(command, file).values()} == {"running"}, "both runs")
        command("cancel", file, "--yes")
        called = (tmp_path / "calls").read_text().splitlines()
        assert ["--clusters=home" in line for line in called if line.startswith("scancel")] == [False, True]
        assert all(line.startswith("squeue --clusters=home ") for line in called if not line.startswith("scancel"))
        wait_for(lambda: not slurm.run("squeue", "-h", "-t", "running,pending").strip(), "their end")
    finally:
        command.end()


def test_a_run_trains_in_its_pool_s_container(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """With its data, output and frozen code, and nothing else of the node; an image that is not there is said by name.

    The container is a stand-in that changes root.
    """
    stand_in_apptainer.write(tmp_path)
    (tmp_path / "image").write_text(f"{sys.prefix} {sys.base_prefix} /usr /bin /lib /lib64 /etc")
    inside = {"image": str(tmp_path / "image"), "python": sys.executable}
    pool = {"device": "cpu", "partition": "cpu", "memory_gb": 2, "setup": [f"export PATH={tmp_path}:$PATH"]}
    pools = {
        "inside": {**pool, "container": inside},
        "nowhere": {**pool, "container": {**inside, "image": "/no/image.sif"}},
    }
    rules = [{"when": {"seed": 1}, "pool": "inside"}, {"pool": "nowhere"}]
    file = slurm_file(tmp_path, data, seeds=(1, 2), pools=pools, assign=rules, epochs=LONG, saves=True)
    on_slurm("submit", file, "--yes")
    folder = folder_of(tmp_path, 1)
    wait_for(lambda: (read(folder.progress) or {}).get("epoch", 0) > 0, "an epoch", seconds=60)
    root = Path(f"/proc/{trainer_of(folder)}/root")
    assert not (root / "home").exists()
    assert not (root / "sweep").exists(), "the clone is of no use to what runs"
    assert (root / data.relative_to("/")).exists()
    found = by_seed(on_slurm, file)
    assert found[1]["state"] == "running"
    assert (found[2]["state"], found[2]["cause"]) == ("failed", "launch_failed")
    assert "could not open image /no/image.sif" in found[2]["message"]


def test_a_pool_takes_any_option_of_sbatch(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """And leaves to the site what it does not name; its time is written as Slurm writes it."""
    named = {
        "device": "cpu",
        "partition": "cpu",
        "cpus": 4,
        "memory_gb": None,
        "time_limit_min": "0:30:00",
        "sbatch": {"nice": 77, "comment": "two words"},
    }
    bare = {"device": "cpu", "memory_gb": None, "time_limit_min": None}
    rules = [{"when": {"seed": 1}, "pool": "named"}, {"pool": "bare"}]
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), pools={"named": named, "bare": bare}, assign=rules)
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=drain", "reason=test")
    said = on_slurm("submit", file, "--yes").stderr
    assert "--nice=77" in said
    assert "bare: 2 runs in 2 jobs; the default partition; 1 CPUs, the site's time limit" in said
    rows = set(slurm.run("squeue", "-h", "-o", "%P|%y|%l|%k|%m").splitlines())
    assert rows == {"cpu|77|30:00|two words|500M", "cpu|0|1:00:00|sweep: 2 runs|500M"}

"""A sweep on this machine, through the real command line and real worker processes: done, killed, stopped, shared."""

import os
import shlex
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from clone_fixtures import BREAKS, Clone
from conftest import Command, metrics, read, wait_for
from networks import REFERENCE, put_networks

pytestmark = pytest.mark.slow


def sweep_file(
    folder: Path,
    data: Path,
    *,
    architecture: str = REFERENCE,
    epochs: int = 2,
    ratios: str = "0.5, 1.0",
    seeds: str = "1, 2",
    more: str = "",
    saves: bool = False,
) -> Path:
    """Write a sweep file. saves: whether a run has a checkpoint after every epoch."""
    put_networks(folder)
    path = folder / "study.yaml"
    path.write_text(
        f"name: study\ngrid:\n  architecture: [{architecture}]\n  dataset: [cifar10]\n"
        f"  ratio: [{ratios}]\n  seed: [{seeds}]\n"
        f"{more}training:\n  epochs: {epochs}\n  batch_size: 4\n  lr_milestones: [1]\n"
        f"execution: {{workers: 2, checkpoint_interval_s: {0 if saves else 600}}}\ndata: {data}\n"
    )
    return path


def states(sweep: Command, file: Path) -> dict[str, str]:
    return {run["id"]: run["state"] for run in sweep.runs(file)}


def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "study" / "runs"


def workers(tmp_path: Path) -> list[psutil.Process]:
    """Find the living worker processes of this test's submissions."""
    found = []
    for path in (tmp_path / "runs" / "study" / "submissions").glob("*.json"):
        for job in read(path)["jobs"]:
            if psutil.pid_exists(job["process"]["pid"]):
                process = psutil.Process(job["process"]["pid"])
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def in_work(tmp_path: Path, epoch: int = 1) -> dict[str, Any]:
    """Return the open attempts whose run has completed some epochs, by run id."""
    found = {}
    for path in runs(tmp_path).glob("*/attempts/*.json"):
        attempt = read(path)
        progress = read(path.parent.parent / "progress.json")
        mine = progress and progress["attempt"] == attempt["number"]
        if attempt["outcome"] is None and mine and progress["epoch"] >= epoch:
            found[attempt["run_id"]] = attempt
    return found


def hold_in_work(tmp_path: Path, count: int) -> dict[str, psutil.Process]:
    """Stop the trainer of each run after its first epoch, until so many are held; return them by run id."""
    held: dict[str, psutil.Process] = {}

    def hold() -> bool:
        for run_id, attempt in in_work(tmp_path).items():
            if run_id not in held:
                held[run_id] = psutil.Process(attempt["process"]["pid"])
                held[run_id].suspend()
        return len(held) == count

    wait_for(hold, f"{count} runs in work")
    return held


def has_pending(process: psutil.Process, number: signal.Signals) -> bool:
    """Tell whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    pending = next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) >> (number - 1) & 1)


def test_a_sweep_goes_from_its_file_to_tables_and_a_second_submit_does_nothing(
    sweep: Command, data: Path, tmp_path: Path
) -> None:
    """Every run is trained once, in as many processes as workers; tables are written; again is not twice."""
    file = sweep_file(tmp_path, data, architecture="resnet18")
    answer = sweep("submit", file, "--yes")
    assert "will execute 4 runs" in answer.stderr
    assert answer.stdout == ""
    assert Counter(states(sweep, file).values()) == {"done": 4}
    attempts = [read(path) for path in runs(tmp_path).glob("*/attempts/*.json")]
    assert len(attempts) == 4
    assert 1 <= len({attempt["process"]["pid"] for attempt in attempts}) <= 2
    assert len(read(tmp_path / "runs" / "study" / "plan.json")["runs"]) == 4
    before = {path: path.stat().st_mtime_ns for path in runs(tmp_path).rglob("*")}
    again = sweep("submit", file, "--yes")
    assert "nothing to submit: 4 done" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs(tmp_path).rglob("*")} == before
    assert len(list((tmp_path / "runs" / "study" / "submissions").glob("*.json"))) == 1
    written = sweep("tables", file).stdout.split()
    assert len(written) == 6 * 3 + 2  # each table in three forms; summary and provenance
    table = (tmp_path / "runs" / "study" / "tables" / "table-4.5.md").read_text()
    best = read(runs(tmp_path) / "resnet18-cifar10-r0.5-s1" / "result.json")["best"]["val_accuracy"]["value"]
    line = next(line for line in table.splitlines() if line.startswith("| Val Acc (S1)"))
    assert f"{best:.2f}" in line
    assert "Missing" not in table


def test_a_killed_worker_loses_nothing(sweep: Command, data: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle: shown as interrupted, the other runs end, and the next submit ends in the same history."""
    whole = tmp_path / "whole"
    whole.mkdir()
    file = sweep_file(tmp_path, data, epochs=4, ratios="0.5", saves=True)
    sweep("submit", file, "--yes", "--output", whole)
    submit = sweep.start("submit", file, "--yes")
    saved: list[dict[str, Any]] = []

    def has_saved() -> bool:
        checkpoints = {path.parts[-3] for path in runs(tmp_path).glob("*/checkpoints/epoch-*.safetensors")}
        saved[:] = [attempt for run_id, attempt in in_work(tmp_path).items() if run_id in checkpoints]
        return bool(saved)

    wait_for(has_saved, "a run with a checkpoint")
    victim = saved[0]["run_id"]
    psutil.Process(saved[0]["process"]["pid"]).kill()
    wait_for(lambda: states(sweep, file)[victim] == "interrupted", "the interruption to be seen", seconds=30)
    assert submit.wait(120) == 4
    assert "was killed while it trained" in submit.stderr.read()
    left = states(sweep, file)
    assert left.pop(victim) == "interrupted"
    assert set(left.values()) == {"done"}
    status = next(run for run in sweep.json("status", file)["runs"] if run["id"] == victim)
    assert (status["cause"], status["attempt"]) == ("killed", 1)
    sweep("submit", file, "--yes")
    result = runs(tmp_path) / victim / "result.json"
    assert metrics(result) == metrics(whole / "study" / "runs" / victim / "result.json")
    first, second = read(result)["attempts"]
    assert (first["outcome"], second["outcome"]) == ("interrupted", "done")
    assert second["start_epoch"] >= 1


def test_a_worker_that_cannot_start_is_reported_with_its_log(sweep: Command, data: Path, tmp_path: Path) -> None:
    """A broken installation is not a quiet sweep in which nothing happens."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch for you')")  # found before the one installed
    sweep.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    answer = sweep("submit", sweep_file(tmp_path, data), "--yes", expect=4)
    assert "ended with exit code 1; see " in answer.stderr
    log = answer.stderr.split("; see ")[1].split("\n")[0]
    assert "no torch for you" in (tmp_path / log).read_text()


def test_ctrl_c_leaves_everything_resumable(sweep: Command, data: Path, tmp_path: Path) -> None:
    """The workers stop in good order, nothing is left running, and the next submit finishes."""
    file = sweep_file(tmp_path, data, epochs=3, ratios="0.5", saves=True)
    submit = sweep.start("submit", file, "--yes")
    held = hold_in_work(tmp_path, 2)
    submit.send_signal(signal.SIGINT)
    wait_for(lambda: all(has_pending(process, signal.SIGTERM) for process in held.values()), "the workers to be told")
    for process in held.values():
        process.resume()
    assert submit.wait(60) == 4
    assert workers(tmp_path) == []
    assert set(states(sweep, file).values()) == {"interrupted"}
    assert "continue with 'sweep submit" in submit.stderr.read()
    for path in runs(tmp_path).glob("*/attempts/0001.json"):
        assert read(path)["message"] == "stopped by SIGTERM"
    sweep("submit", file, "--yes")
    assert set(states(sweep, file).values()) == {"done"}
    for path in runs(tmp_path).glob("*/result.json"):
        assert read(path)["attempts"][1]["start_epoch"] >= 1


def test_two_submits_at_once_train_every_run_once(sweep: Command, data: Path, tmp_path: Path) -> None:
    """Both may be started in the same moment; each run has one attempt, and all are done."""
    file = sweep_file(tmp_path, data, seeds="1, 2, 3")
    both = [sweep.start("submit", file, "--yes") for _ in range(2)]
    assert {process.wait(180) for process in both} <= {0, 4}  # 4: nothing to do, and the others not finished yet
    wait_for(lambda: set(states(sweep, file).values()) == {"done"}, "all runs")
    for folder in runs(tmp_path).iterdir():
        assert [path.name for path in (folder / "attempts").iterdir()] == ["0001.json"], folder.name
        assert len(read(folder / "result.json")["attempts"]) == 1


def test_workers_outlive_their_shell_and_cancel_ends_them(sweep: Command, data: Path, tmp_path: Path) -> None:
    """The submitting process is killed; the runs go on; a second submit leaves them alone; cancel stops them."""
    file = sweep_file(tmp_path, data, epochs=400)
    submit = sweep.start("submit", file, "--yes")
    wait_for(lambda: len(in_work(tmp_path)) == 2, "two runs in work")
    submit.kill()
    submit.wait()
    assert Counter(states(sweep, file).values()) == {"running": 2, "queued": 2}
    assert "nothing to submit: 2 running, 2 queued" in sweep("submit", file, "--yes", expect=4).stderr
    first = next(iter(in_work(tmp_path)))
    sweep("cancel", file, first, "--yes")
    wait_for(lambda: states(sweep, file)[first] == "cancelled", "the one run to be cancelled", seconds=30)
    wait_for(lambda: Counter(states(sweep, file).values())["running"] == 2, "its worker to go on with another")
    sweep("cancel", file, "--yes")
    wait_for(lambda: set(states(sweep, file).values()) == {"cancelled"}, "all to be cancelled", seconds=30)
    wait_for(lambda: workers(tmp_path) == [], "the workers to end")
    assert "nothing to cancel" in sweep("cancel", file, "--yes").stderr
    assert read(runs(tmp_path) / first / "attempts" / "0001.json")["outcome"] == "cancelled"
    assert "will execute 4 runs" in sweep("submit", file, "--dry-run").stderr.replace("would", "will")


def test_a_failure_is_named_explained_and_retried(sweep: Command, data: Path, tmp_path: Path) -> None:
    """Of three runs one diverges: exit 3, its cause, message and log; retry leaves it unless it is named."""
    file = sweep_file(tmp_path, data, ratios="0.5", seeds="1", more="  learning_rate: [1e-4, 3e-4, 1e30]\n")
    answer = sweep("submit", file, "--yes", expect=3)
    bad = "small-cifar10-r0.5-s1-learning_rate=1e+30"
    assert f"✗ {bad}  diverged: " in answer.stderr
    assert Counter(states(sweep, file).values()) == {"done": 2, "failed": 1}
    (failed,) = sweep.json("status", file, "--failed")["runs"]
    assert (failed["id"], failed["cause"], failed["attempt"]) == (bad, "diverged", 1)
    assert "loss is" in failed["message"]
    assert "DivergedError" in Path(tmp_path / failed["log"]).read_text()
    assert sweep("status", file, "--exit-code", expect=3).stdout.count("\n") == 3
    assert "DivergedError" in sweep("logs", file, bad).stdout
    assert "failed runs wait for 'sweep retry" in sweep("submit", file, "--yes", expect=3).stderr
    assert "would again with the same recipe" in sweep("retry", file, "--failed", "--yes").stderr
    sweep("retry", file, bad, "--yes", expect=3)
    assert sweep.json("status", file, "--failed")["runs"][0]["attempt"] == 2
    sweep("tables", file)
    text = (tmp_path / "runs" / "study" / "tables" / "table-4.9-learning_rate=1e+30.md").read_text()
    assert f"Missing: {bad} (failed, diverged:" in text.replace("\\", "")
    assert "-inf" in text


def test_a_changed_recipe_makes_results_stale_and_nothing_is_lost(sweep: Command, data: Path, tmp_path: Path) -> None:
    """Stale results stay until asked for, count in no table, and are set aside, not deleted, when trained anew."""
    file = sweep_file(tmp_path, data, ratios="0.5", seeds="1")
    sweep("submit", file, "--yes")
    (run_id,) = states(sweep, file)
    old = (runs(tmp_path) / run_id / "result.json").read_bytes()
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 3"))
    assert states(sweep, file) == {run_id: "stale"}
    answer = sweep("submit", file, "--yes", expect=4)
    assert "stale runs keep their results until 'sweep submit" in answer.stderr
    sweep("tables", file)
    table = (tmp_path / "runs" / "study" / "tables" / "table-4.9.md").read_text()
    assert "(stale: done, with another recipe than the plan's)" in table
    sweep("submit", file, "--yes", "--stale")
    assert states(sweep, file) == {run_id: "done"}
    (kept,) = (tmp_path / "runs" / "study" / "superseded").glob(f"{run_id}.*/result.json")
    assert kept.read_bytes() == old
    assert read(runs(tmp_path) / run_id / "result.json")["training"]["epochs"] == 3


def test_damaged_records_cost_a_run_none_of_its_work(sweep: Command, data: Path, tmp_path: Path) -> None:
    """Progress, error, commitment and result cannot be read: the run goes on from its checkpoint all the same."""
    file = sweep_file(tmp_path, data, ratios="0.5", seeds="1", epochs=6, saves=True)
    submit = sweep.start("submit", file, "--yes")
    (run_id,) = states(sweep, file)
    folder = runs(tmp_path) / run_id
    wait_for(lambda: len(list(folder.glob("checkpoints/epoch-*"))) >= 2, "two checkpoints")
    submit.send_signal(signal.SIGINT)
    assert submit.wait(60) == 4
    for name in ("progress.json", "error.json", "run.json", "result.json"):
        (folder / name).write_text('{"half')
    sweep("retry", file, "--yes")
    attempts = read(folder / "result.json")["attempts"]
    assert attempts[-1]["start_epoch"] >= 2
    (kept,) = (tmp_path / "runs" / "study" / "superseded").iterdir()
    assert [path.name for path in kept.iterdir()] == ["result.json"]


def test_a_dry_run_and_missing_data_write_nothing(sweep: Command, data: Path, tmp_path: Path) -> None:
    """`--dry-run` says what would be done; without prepared data submit names the command that prepares it."""
    file = sweep_file(tmp_path, data)
    shown = sweep("submit", file, "--dry-run", "--show-script")
    assert "would execute 4 runs" in shown.stderr
    submissions = tmp_path / "runs/study/submissions"
    for line in shown.stdout.split("\n\n"):
        _, unbuffered, code, *words = line.split(" --job ")[0].split()
        assert (unbuffered, Path(code).parent) == ("-u", submissions / "code")
        assert words == ["trainer", "--bundle", str(submissions / "WORD-0001/0/bundle.json")]
    refused = sweep("submit", file, "--yes", "--data", tmp_path / "empty", expect=2)
    assert "cifar10 is not prepared; run 'sweep data prepare cifar10" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_the_commands_that_are_shown_are_those_of_the_workers(sweep: Command, data: Path, tmp_path: Path) -> None:
    """A line a worker and nothing else on stdout; a dry run shows the same and writes nothing."""
    file = sweep_file(tmp_path, data, epochs=400)
    before = sweep("submit", file, "--dry-run", "--show-script").stdout
    assert not (tmp_path / "runs").exists()
    shown = sweep("submit", file, "--yes", "--no-wait", "--show-script").stdout
    word = (tmp_path / "runs" / "study" / "submissions" / "word").read_text()
    assert before == shown.replace(word, "WORD")
    words = [
        [word for word in shlex.split(line) if not word.startswith(("env", "CUDA_VISIBLE_DEVICES="))]
        for line in shown.splitlines()
        if line
    ]
    assert sorted(words) == sorted(worker.cmdline() for worker in workers(tmp_path))
    assert len(words) == 2
    sweep("cancel", file, "--yes")
    wait_for(lambda: workers(tmp_path) == [], "the workers to end", 60)


def test_a_killed_worker_is_replaced_while_runs_wait(sweep: Command, data: Path, tmp_path: Path) -> None:
    """The submitting process starts another, which the submission's record names; the killed run is not touched."""
    file = sweep_file(tmp_path, data, epochs=3)
    submit = sweep.start("submit", file, "--yes")
    (victim, killed), (_, other) = hold_in_work(tmp_path, 2).items()
    killed.kill()
    other.resume()
    assert submit.wait(120) == 4
    assert f"was killed while it trained {victim}" in submit.stderr.read()
    assert Counter(states(sweep, file).values()) == {"done": 3, "interrupted": 1}
    [record] = [read(path) for path in (tmp_path / "runs" / "study" / "submissions").glob("*.json")]
    assert [job["id"] for job in record["jobs"]] == [f"{record['token']}-{number}" for number in (1, 2, 3)]
    assert len(list((runs(tmp_path) / victim / "attempts").iterdir())) == 1


def test_logs_can_be_followed_to_the_end(sweep: Command, data: Path, tmp_path: Path) -> None:
    """`logs -f` goes on while the run does, ends with it, and misses no line."""
    file = sweep_file(tmp_path, data, epochs=4, ratios="0.5", seeds="1")
    submit = sweep.start("submit", file, "--yes")
    wait_for(lambda: len(in_work(tmp_path)) == 1, "the run in work")
    followed = sweep("logs", file, "small-cifar10-r0.5-s1", "-f").stdout
    assert submit.wait(60) == 0
    assert "epoch 1/4" in followed
    assert "epoch 4/4" in followed
    assert followed == (runs(tmp_path) / "small-cifar10-r0.5-s1" / "logs" / "attempt-0001.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("logs",), "give one run id"),
        (("logs", "small-cifar10-r0.5-s3"), "no run 'small-cifar10-r0.5-s3' in this sweep; did you mean"),
        (("logs", "small-cifar10-r0.5-s1"), "has not been started and has no log"),
        (("retry", "nonsense"), "no run 'nonsense' in this sweep; 'sweep status' lists them"),
        (("retry", "--failed", "small-cifar10-r0.5-s1"), "give '--failed' or run ids, not both"),
        (("cancel", "small-cifar10-r0.5-s1"), "is planned; there is nothing to cancel"),
        (("cancel", "--state", "done"), "a done run cannot be cancelled"),
    ],
)
def test_a_wrong_name_gets_one_sentence_and_exit_2(
    sweep: Command, data: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """What is wrong and what to do next; no traceback."""
    command, *rest = arguments
    answer = sweep(command, sweep_file(tmp_path, data), *rest, expect=2)
    assert sentence in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_an_edit_changes_neither_what_runs_nor_what_goes_on(data: Path, tmp_path: Path) -> None:
    """The worker loads the code of the submission; the run it began keeps that, one that never began takes the edit."""
    clone = Clone(tmp_path / "clone")
    sweep = Command("sweep", tmp_path, clone.environment)
    file = sweep_file(tmp_path, data, ratios="1.0", epochs=1000)
    try:
        sweep("submit", file, "--yes", "--workers", 1, "--no-wait")
        clone.edit("trainer/run/attempt.py", BREAKS)
        wait_for(lambda: bool(in_work(tmp_path)), "an epoch of the first run")
        (begun,) = in_work(tmp_path)
        for worker in workers(tmp_path):
            worker.kill()
        again = sweep("submit", file, "--dry-run", "--show-script")
        anew = sweep("submit", file, "--dry-run", "--show-script", "--new-code")
        shown = sweep.json("show", file, begun)
    finally:
        sweep.end()
    kept, new = (Path(said.stdout.split()[2]) for said in (again, anew))
    assert kept != new
    assert shown["code"].pop("own")  # of the network, which lies beside the sweep file
    assert shown["code"] == {"snapshot": kept.name, "commit": clone.head, "dirty": False}
    assert (shown["snapshot"], shown["attempts"][0]["code"]) == (str(kept), kept.name)
    assert f"{begun}: continues with the code that began it ({kept.name}, commit {clone.head[:12]})" in again.stderr
    assert "1 runs are left for later: they continue with other code" in again.stderr
    assert f"as it is now: {new.name}, commit {clone.head[:12]} with uncommitted changes" in anew.stderr
    assert "continues with" not in anew.stderr

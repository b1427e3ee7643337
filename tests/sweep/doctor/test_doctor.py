"""The doctor finds what would go wrong, says what to do about it, and leaves nothing behind.

Slurm is a folder of commands on PATH that answer as 22.05 does; the folders, the data and the probe are real.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from slurm.pools import Pool
from slurm.probe import Findings, Gpu, gpu_troubles, read_findings
from slurm.probe import examine as look
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.doctor.check import Check, Verdict
from sweep.doctor.examine import examine
from sweep.doctor.nodes import judge, srun_command
from trainer.models.build import build_model, parameter_count
from trainer.models.catalog import ARCHITECTURES
from trainer.records.recipe import Recipe

CLUSTER = """\
name: lab
pools:
  small: {device: cpu, partition: gpu, gres: "gpu:v100:1", cpus: 4, memory_gb: 16, time_limit_min: 60}
  large: {device: v100, partition: gpu, gres: "gpu:v100:1", constraint: v100-32gb, time_limit_min: 1440}
  unused: {device: h100, partition: nowhere}
"""

STUDY = """\
name: study
grid: {architecture: [resnet18, vit], dataset: [cifar10], ratio: [1.0], seed: [1, 2]}
training: {batch_size: 4}
cluster:
  file: lab.yaml
  assign:
    - {when: {seed: 1}, pool: small}
    - {pool: large}
"""

FAKES = {
    "sbatch": "exit 1",
    "squeue": "exit 1",
    "scancel": 'echo "$@" >> "$FAKE/scancelled"',
    "sacct": "exit 0",
    "scontrol": """case "$*" in
"show config") echo "MaxArraySize = 1001"; echo "MaxJobCount = 10000"; echo "ClusterName = lab"
  echo "AccountingStorageEnforce = ${ENFORCE:-none}";;
*) echo "PartitionName=gpu MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED";;
esac""",
    "sinfo": 'echo "gpu|up|1-00:00:00|2|16|64000|gpu:v100:4|v100,v100-32gb|idle"',
    "sacctmgr": 'echo "lab|normal,short"',
    # The options end where the command to run begins.
    "srun": 'while [ "$1" != bash ]; do shift; done; SLURMD_NODENAME=node-1 exec "$@"',
}

Put = Callable[[str, str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put Slurm's commands on PATH; call it to have one of them do something else."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    for name, script in FAKES.items():
        put(name, script)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return put


@pytest.fixture
def study(tmp_path: Path, data: Path) -> Sweep:
    return load(tmp_path, data)


def load(tmp_path: Path, data: Path, *, cluster: str = CLUSTER, text: str = STUDY) -> Sweep:
    (tmp_path / "lab.yaml").write_text(cluster)
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_sweep(path, output=tmp_path / "runs", data=data)


def diagnose(sweep: Sweep, *, until: str = "disk", probe: bool = False) -> dict[str, Check]:
    """Return the checks by name, up to the first whose name begins like this."""
    found = {}
    checks = examine(sweep, sweep.cluster.pools if sweep.cluster else {}, probe=probe)
    for check in checks:
        found[check.name] = check
        if check.name.startswith(until):
            break
    checks.close()  # type: ignore[attr-defined]
    return found


def states(checks: Iterable[Check]) -> set[str]:
    return {check.state for check in checks}


def test_a_sound_sweep_gets_no_complaint(study: Sweep, fake: Put) -> None:
    """All is looked at, pools that no run uses are not, and every folder made to look is gone."""
    found = diagnose(study)
    assert states(found.values()) == {"ok"}, [check.line() for check in found.values()]
    assert list(found) == ["commands", "slurmctld", "accounting", "pool small", "pool large", "output", "data", "disk"]
    assert "10,000 jobs" in found["slurmctld"].words
    assert not study.folder.parent.exists()


@pytest.mark.slow
def test_without_slurm_the_sweep_is_said_to_execute_here(
    study: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's checks are skipped, the others made; torch is looked at where it will be used."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = diagnose(study, until="nothing", probe=True)
    assert list(found) == ["slurm", "output", "data", "disk", "torch"]
    assert found["slurm"].state == "skipped"
    assert "no Slurm command is on PATH: the sweep executes on this machine" in found["slurm"].words
    assert states(list(found.values())[1:]) == {"ok"}


def test_a_sweep_without_pools_asks_no_slurm(tmp_path: Path, data: Path, fake: Put) -> None:
    """Whatever is installed."""
    fake("scontrol", 'touch "$FAKE/asked"')
    text = STUDY.partition("cluster:")[0]
    assert "its runs name no pools" in diagnose(load(tmp_path, data, text=text))["slurm"].words
    assert not (tmp_path / "bin" / "asked").exists()


def test_a_missing_command_is_a_problem(
    study: Sweep, fake: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of Slurm is no Slurm, and no machine without it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin" / "sacct").unlink()
    found = diagnose(study)
    assert (found["commands"].state, found["commands"].words) == ("problem", "sacct not on PATH")
    assert "sacct is not on PATH" in found["accounting"].words


@pytest.mark.slow
def test_a_silent_controller_stops_what_depends_on_it(study: Sweep, fake: Put) -> None:
    """The pools cannot be judged; accounting and the folders still are, and nothing is probed."""
    fake("scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    fake("srun", 'touch "$FAKE/started"')
    found = diagnose(study, until="nothing", probe=True)
    assert found["slurmctld"].state == "problem"
    assert "Unable to contact slurm controller" in found["slurmctld"].words
    assert found["pools"].state == "skipped"
    assert {"accounting", "output", "data", "disk", "torch"} <= set(found)
    assert not Path(os.environ["FAKE"], "started").exists()


def test_missing_accounting_is_a_warning_that_says_what_is_lost(study: Sweep, fake: Put) -> None:
    """Many small clusters are so; nothing else changes."""
    fake("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    fake("sacctmgr", "exit 1")
    found = diagnose(study)
    check = found.pop("accounting")
    assert check.state == "warning"
    assert "accounting storage is disabled" in check.words
    assert "how a job ended is known only for the minutes" in check.words
    assert "sweep watch" in (check.remedy or "")
    assert states(found.values()) == {"ok"}


@pytest.mark.slow
def test_a_pool_the_cluster_does_not_have_is_named_with_its_file(tmp_path: Path, data: Path, fake: Put) -> None:
    """Partition, time limit and account, each where it is to be mended; the pool is not probed."""
    fake("srun", 'echo "$*" >> "$FAKE/started"; exit 1')
    cluster = CLUSTER.replace("partition: gpu", "partition: gpux", 1).replace("1440", "9999")
    found = list(
        examine(
            sweep := load(tmp_path, data, cluster=cluster), sweep.cluster.pools if sweep.cluster else {}, probe=True
        )
    )
    small, large = (check for check in found if check.name.startswith("pool "))
    assert (small.state, large.state) == ("problem", "problem")
    assert small.words == "partition 'gpux' does not exist; did you mean 'gpu'?"
    assert small.remedy == f"edit pool 'small' in {tmp_path / 'lab.yaml'}"
    assert "set 'time_limit_min: 1440'" in large.words
    assert not (tmp_path / "bin" / "started").exists()


@pytest.mark.parametrize(("enforced", "state"), [("none", "warning"), ("associations,limits,qos", "problem")])
def test_an_account_or_qos_accounting_does_not_know(
    enforced: str, state: str, tmp_path: Path, data: Path, fake: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A problem where the cluster enforces them, a warning where it takes the job all the same."""
    monkeypatch.setenv("ENFORCE", enforced)
    cluster = CLUSTER.replace("partition: gpu", "partition: gpu, account: nosuch", 1).replace(
        "device: v100, partition: gpu", "device: v100, partition: gpu, account: lab, qos: long"
    )
    found = diagnose(load(tmp_path, data, cluster=cluster))
    assert (found["account small"].state, found["account large"].state) == (state, state)
    assert found["account small"].words.startswith("account 'nosuch' is not one of yours: lab")
    assert found["account large"].words.startswith("qos 'long' is not open to you; these are: normal, short")


def test_a_known_account_and_qos_are_fine(tmp_path: Path, data: Path, fake: Put) -> None:
    """And said to be."""
    cluster = CLUSTER.replace("partition: gpu", "partition: gpu, account: lab, qos: short", 1)
    assert diagnose(load(tmp_path, data, cluster=cluster))["account small"].state == "ok"


def test_a_pool_without_a_partition_goes_to_the_default_one_if_there_is_one(
    tmp_path: Path, data: Path, fake: Put
) -> None:
    """Without one it is said that nothing of the pool could be checked."""
    study = load(tmp_path, data, cluster=CLUSTER.replace("device: v100, partition: gpu,", "device: v100,"))
    found = diagnose(study)["pool large"]
    assert (found.state, "names no partition" in found.words) == ("warning", True)
    fake("scontrol", FAKES["scontrol"].replace("PartitionName=gpu", "PartitionName=gpu Default=YES"))
    assert diagnose(study)["pool large"].line().startswith("ok pool large: the cluster has it: the default partition")


def test_data_that_is_not_prepared_or_cut_short_is_a_problem(tmp_path: Path, data: Path, fake: Put) -> None:
    """With the command that prepares it."""
    check = diagnose(load(tmp_path, tmp_path / "empty"))["data"]
    assert (check.state, check.words) == ("problem", f"{tmp_path / 'empty' / 'cifar10'}: CIFAR-10 is not prepared")
    assert "sweep data prepare cifar10" in (check.remedy or "")
    copy = tmp_path / "cut" / "cifar10"
    copy.mkdir(parents=True)
    for path in (data / "cifar10").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "train_images.npy").write_bytes((data / "cifar10" / "train_images.npy").read_bytes()[:-1000])
    assert "train_images.npy" in diagnose(load(tmp_path, copy.parent))["data"].words


def test_an_output_folder_that_cannot_be_written_is_a_problem(tmp_path: Path, data: Path, fake: Put) -> None:
    """Here a file stands in its way, which stops root too."""
    (tmp_path / "runs").write_text("in the way")
    found = diagnose(load(tmp_path, data), until="node", probe=True)
    assert found["output"].state == "problem"
    assert "--output DIR" in (found["output"].remedy or "")
    assert found["nodes"].state == "skipped"


def test_the_disk_is_held_against_the_unfinished_runs(study: Sweep, fake: Put) -> None:
    """Two ResNets and two ViTs: three checkpoints each at a time. Runs that are done need nothing."""
    words = diagnose(study)["disk"].words
    need = 3 * 12 * 2 * sum(network.parameters for network in ARCHITECTURES.values()) / 1e9
    assert f"4 unfinished runs need {need:.1f} GB for 4 at a time" in words
    for placed in study.runs:
        folder = study.folder / "runs" / placed.id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    assert "0 unfinished runs need 0.0 GB" in diagnose(study)["disk"].words


@pytest.mark.parametrize(
    ("architecture", "classes", "size"), [("resnet18", 10, 32), ("resnet18", 200, 64), ("vit", 200, 64)]
)
def test_the_sizes_the_disk_check_counts_with_are_the_networks(architecture: str, classes: int, size: int) -> None:
    """Never below the real number, and at most 3 % above."""
    real = parameter_count(build_model(architecture, classes, size, Recipe()))
    assert real <= ARCHITECTURES[architecture].parameters <= 1.03 * real


def test_what_runs_need_of_a_gpu_is_compared_with_what_it_has(tmp_path: Path, data: Path, fake: Put) -> None:
    """A pool that does not say what its GPUs have is compared with the smallest of their kind."""
    guessed = diagnose(load(tmp_path, data), until="GPU")["GPU memory large"]
    assert (guessed.state, guessed.words[-18:]) == ("ok", "of at least 16 GiB")
    fits = CLUSTER.replace("constraint: v100-32gb", "constraint: v100-32gb, gpu_memory_gb: 16")
    assert diagnose(load(tmp_path, data, cluster=fits), until="GPU")["GPU memory large"].state == "ok"
    tight = CLUSTER.replace("constraint: v100-32gb", "constraint: v100-32gb, gpu_memory_gb: 0.5")
    check = diagnose(load(tmp_path, data, cluster=tight), until="GPU")["GPU memory large"]
    assert check.state == "problem"
    assert "GiB of a GPU, which has 0.5 GiB; send it to another pool" in check.line()


@pytest.mark.slow
def test_a_probe_on_each_pool_tells_what_its_node_has(tmp_path: Path, data: Path, fake: Put) -> None:
    """Setup lines may print; a pool for CPUs expects no GPU; one for GPUs without any is a problem."""
    cluster = CLUSTER.replace("partition: gpu", 'setup: ["echo {}", "export SEEN=1"], partition: gpu', 1)
    sweep = load(tmp_path, data, cluster=cluster)
    found = diagnose(sweep, until="nothing", probe=True)
    assert found["node small"].state == "ok", found["node small"].line()
    assert found["node small"].words.startswith("node-1 sees the output folder and the data, and writes; Python 3.")
    if not found["node small"].words.endswith("no GPU"):
        pytest.skip("this machine has a GPU")
    assert found["node large"].state == "problem"
    assert "can use no GPU on node-1" in found["node large"].words
    assert found["torch large"].state == "ok"
    assert not sweep.folder.parent.exists()


SRUN = {
    "busy": (
        "echo 'srun: job 4 queued and waiting for resources' >&2\n"
        "echo 'srun: error: Unable to allocate resources: Requested nodes are busy' >&2; exit 1",
        "skipped",
        "no node of pool small was free within 30 s; the check is repeated by the next 'sweep doctor'",
    ),
    "refused": (
        "echo 'srun: error: Unable to allocate resources: Invalid qos specification' >&2; exit 1",
        "problem",
        "Slurm refuses its jobs: Unable to allocate resources: Invalid qos specification",
    ),
    "an option it does not know": (
        "echo \"srun: unrecognized option '--container-image=/a'\" >&2\n"
        "echo 'Try \"srun --help\" for more information' >&2; exit 1",
        "problem",
        "Slurm refuses its jobs: unrecognized option '--container-image=/a'",
    ),
    "a setup line": (
        "echo 'sweep: setup: module load a' >&2; echo 'no a' >&2\n"
        "echo 'sweep: setup failed with exit code 1: module load a' >&2; exit 1",
        "problem",
        "'module load a' failed there with exit code 1: no a",
    ),
    "no Python": (
        "echo '/home/me/.venv/bin/python: No such file or directory' >&2\n"
        "echo 'srun: error: node-1: task 0: Exited with exit code 127' >&2; exit 127",
        "problem",
        "could tell anything: /home/me/.venv/bin/python: No such file or directory",
    ),
    "killed": ("kill -9 $$", "problem", "could tell anything: exit code -9"),
}


@pytest.mark.parametrize("case", SRUN)
def test_a_probe_that_comes_to_nothing_says_why(case: str, study: Sweep, fake: Put) -> None:
    """No free node is no fault of the sweep's; everything else is a problem with a remedy."""
    script, state, words = SRUN[case]
    fake("srun", f'case "$*" in *32gb*) sleep 20;; esac\n{script}')
    check = diagnose(study, until="node", probe=True)["node small"]
    assert check.state == state
    assert words in check.words
    assert check.remedy or state == "skipped"


@pytest.mark.slow
def test_closing_the_examination_ends_its_probes(study: Sweep, fake: Put) -> None:
    """The second pool's srun would take a minute: it is ended, its job cancelled by name, the mark removed."""
    fake("srun", f'case "$*" in *32gb*) echo $$ > "$FAKE/srun.pid"; exec sleep 60;; esac; {FAKES["srun"]}')
    assert diagnose(study, until="node", probe=True)["node small"].state == "ok"
    folder = Path(os.environ["FAKE"])
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "srun.pid").read_text()), 0)
    assert (folder / "scancelled").read_text().startswith("--name=sweep-doctor-")
    assert not study.folder.parent.exists()


def test_a_probe_asks_for_what_the_pools_jobs_ask_for() -> None:
    """The same place, account and setup; little memory, two minutes, and no long wait."""
    pool = Pool(
        device="v100",
        partition="gpu",
        gres="gpu:v100:1",
        constraint="a|b",
        account="lab",
        qos="short",
        memory_gb=16,
        setup=["module load cuda"],
    )
    command = srun_command(pool, "probe-1", ["/a path/python", "-m", "slurm.probe"])
    options = {
        "--job-name=probe-1",
        "--partition=gpu",
        "--gres=gpu:v100:1",
        "--constraint=a|b",
        "--account=lab",
        "--qos=short",
        "--mem=4096M",
        "--time=2",
        "--immediate=30",
    }
    assert options <= set(command)
    assert command[-3:-1] == ["bash", "-c"]
    assert command[-1].splitlines()[-1] == "exec '/a path/python' -m slurm.probe"
    assert "eval 'module load cuda'" in command[-1]
    bare_pool = Pool(device="cpu", partition="cpu", memory_gb=0.5)
    alone = srun_command(bare_pool.model_copy(update={"export": ["HOME", "LANG"]}), "probe-1", ["true"])
    assert alone[-5:] == ["--export=HOME,LANG", "/bin/bash", "-l", "-c", "exec true"]
    bare = srun_command(bare_pool, "probe-1", ["true"])
    assert "--mem=512M" in bare
    assert not any(word.startswith(("--gres", "--constraint", "--account", "--qos")) for word in bare)


def test_the_probe_never_fails(tmp_path: Path) -> None:
    """Neither without folders nor without anything; what is wrong is in what it tells."""
    found = look(tmp_path / "none", tmp_path / "nothing", "abc")
    assert (found.folder, found.writable, found.data, found.free_bytes) == (False, False, False, None)
    assert {"folder", "writable", "data", "free"} <= set(found.problems)
    assert found.python == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(
    ("new", "old", "used", "troubles"),
    [
        ("0, 0, No, No", "", 0.6, []),
        ("0, [N/A], [N/A], [N/A]", "", 0.6, []),
        ("3, 2, No, Yes", "", 0.6, ["GPU 3 has had 2 uncorrectable", "GPU 3 waits for a restart"]),
        ("", "0, 0, Yes", 0.6, ["GPU 0 waits for a restart"]),
        ("", "", 0.6, []),
        ("0, 0, No, No", "", 9.5, ["another process uses GPU 0 (9.5 of 16.0 GiB of its memory)"]),
    ],
)
def test_a_gpu_in_a_bad_way_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str, old: str, used: float, troubles: list[str]
) -> None:
    """By nvidia-smi, whose older versions refuse a question with a field they do not know, and by torch."""
    script = '#!/bin/sh\ncase "$*" in *remapped_rows*) said="$NEW";; *) said="$OLD";; esac\n'
    program = tmp_path / "nvidia-smi"
    program.write_text(script + '[ -n "$said" ] || exit 2\necho "$said"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("NEW", new)
    monkeypatch.setenv("OLD", old)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (int((16 - used) * 2**30), 16 * 2**30))
    found = gpu_troubles()
    assert len(found) == len(troubles)
    assert all(words in line for words, line in zip(troubles, found, strict=True))


@pytest.mark.parametrize(
    "output", ["", "module loaded\n", "{}\n[]\n5\nnull\n", '{"nonce": "other"}\n', '{"nonce": "abc"}\n']
)
def test_what_is_not_the_probes_line_is_not_taken_for_it(output: str) -> None:
    """Setup lines print what they like."""
    assert read_findings(output, "abc") is None


FINE = Findings("abc", "v100-1", "host", True, True, True, 10**12, "3.11.7", "2.7.1", ("sm_60", "sm_70"), (), {})
TESLA = Gpu("Tesla V100", "sm_70")

JUDGED = {
    "all is well": (FINE._replace(gpus=(TESLA,)), [("ok", "Tesla V100 (sm_70)")]),
    "another folder of that name": (FINE._replace(gpus=(TESLA,), folder=False), [("problem", "does not see")]),
    "a read-only folder": (
        FINE._replace(gpus=(TESLA,), writable=False, problems={"writable": "Read-only file system"}),
        [("problem", "Read-only file system")],
    ),
    "no data": (FINE._replace(gpus=(TESLA,), data=False), [("problem", "does not see")]),
    "no torch": (
        FINE._replace(torch=None, problems={"torch": "libcudart.so: cannot open"}),
        [("problem", "cannot import torch (libcudart.so: cannot open)")],
    ),
    "no GPU": (FINE, [("problem", "can use no GPU on v100-1")]),
    "an old driver": (
        FINE._replace(problems={"gpus": "The NVIDIA driver on your system is too old"}),
        [("problem", "driver on your system is too old")],
    ),
    "no kernels": (
        FINE._replace(gpus=(TESLA,), archs=("sm_75", "sm_80")),
        [("problem", "has no kernels for Tesla V100 on v100-1 (sm_70), only for sm_75, sm_80")],
    ),
    "a GPU whose memory is failing": (
        FINE._replace(gpus=(TESLA,), troubles=("GPU 0 waits for a restart to leave out failing memory",)),
        [("warning", "v100-1: GPU 0 waits for a restart"), ("ok", "Tesla V100 (sm_70)")],
    ),
    "another GPU than the pool says": (
        FINE._replace(gpus=(Gpu("Tesla P100", "sm_60"),)),
        [("warning", "has Tesla P100 (sm_60), the pool says device 'v100'"), ("ok", "Tesla P100")],
    ),
}


@pytest.mark.parametrize("case", JUDGED)
def test_what_a_node_has_is_judged_with_a_remedy(case: str, study: Sweep) -> None:
    """Each thing that stands in the way of runs is a check of its own."""
    findings, expected = JUDGED[case]
    assert study.cluster
    checks = list(judge(study, "node large", study.cluster.pools["large"], findings))
    assert [check.state for check in checks] == [state for state, _ in expected]
    for check, (state, words) in zip(checks, expected, strict=True):
        assert words in check.words
        assert state == "ok" or check.remedy


def test_a_check_is_one_line_of_text() -> None:
    """State, name, words and what to do."""
    assert Check("data", Verdict.PROBLEM, "it is gone", "fetch it").line() == "problem data: it is gone; fetch it"
    assert Check("data", Verdict.OK, "it is there").line() == "ok data: it is there"


def test_the_doctor_costs_no_torch_until_it_examines() -> None:
    """Nor numpy: the command line imports it."""
    code = (
        "import sweep.doctor, sys\nfor heavy in ('torch', 'numpy', 'submitit'): assert heavy not in sys.modules, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)

"""Find out what would go wrong before a sweep goes anywhere: the cluster, the folders, the data, the disk, torch.

Looks and reports; decides nothing and mends nothing. What it has to write to look, it removes.
"""

import contextlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from slurm.commands import SlurmError, call
from slurm.limits import ClusterLimits, delays, problems, read_limits
from slurm.local import default_workers
from slurm.pools import Pool
from slurm.probe import Findings, mark, read_findings
from sweep.config import Sweep
from sweep.store import SweepFolder
from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, open_dataset

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun")
FREE_NODE_S = 30  # how long a probe waits for a node
PROBE_MIN = 2
PROBE_MEMORY_GB = 4.0  # importing torch and starting CUDA takes two
PROBE_S = FREE_NODE_S + 60 * PROBE_MIN + 30.0  # Slurm ends a probe before this
HERE_S = 120.0  # importing torch from a cold network file system has been seen to take a minute
POLL_S = 0.1

# Parameters with 200 classes at 64 pixels, the larger of the two datasets: within 3 % of the smaller.
PARAMETERS = {"resnet18": 11_279_112, "vit": 3_280_840}
BYTES_A_PARAMETER = 3 * 4  # fp32: the weight and AdamW's two moments
CHECKPOINTS = 2

CAPABILITY = {"p100": "sm_60", "v100": "sm_70", "a100": "sm_80", "h100": "sm_90"}
NEWER_TORCH = "pip install 'torch==2.7.1' (it has sm_60 to sm_90)"

State = Literal["ok", "warning", "problem", "skipped"]


class Check(NamedTuple):
    """What was looked at and what was found. remedy: what to do or type, of every warning and problem."""

    name: str
    state: State
    words: str
    remedy: str | None = None

    def line(self) -> str:
        """Give it as one line of text."""
        return f"{self.state} {self.name}: {self.words}" + (f"; {self.remedy}" if self.remedy else "")


def examine(sweep: Sweep, pools: Mapping[str, Pool], *, probe: bool) -> Iterator[Check]:
    """Check one thing after another. pools: of the cluster file, by name; those no run goes to are left alone.

    probe: also start one short job in each pool. Closing the iterator early ends them.
    """
    used = {name: pools[name] for name in dict.fromkeys(placed.pool for placed in sweep.runs) if name in pools}
    cluster = _Cluster(sweep, used)
    yield from cluster.checks()
    asked = used if cluster.on_slurm else {}
    nonce = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_marked(sweep.folder, nonce))
        except OSError as error:
            words = f"{sweep.folder} cannot be written: {error.strerror or error}"
            remedy = f"choose another folder with 'output:' in {sweep.file} or with '--output DIR'"
            yield Check("output", "problem", words, remedy)
            writable = False
        else:
            yield Check("output", "ok", f"{sweep.folder} can be written")
            writable = True
        yield from _data(sweep)
        yield from _disk(sweep, asked)
        seen: dict[str, Findings] = {}
        if probe and cluster.usable and not writable:
            yield Check("nodes", "skipped", "there is no output folder for them to look at")
        elif probe:
            yield from _probe(sweep, cluster.usable, nonce, seen)
        yield from _torch(_look_here(sweep, nonce), asked, seen)


class _Cluster:
    """The checks that ask Slurm, and what they leave for the others: the limits and the pools that can start jobs."""

    def __init__(self, sweep: Sweep, used: Mapping[str, Pool]) -> None:
        self.sweep = sweep
        self.used = used
        self.on_slurm = False
        self.limits: ClusterLimits | None = None
        self.usable: dict[str, Pool] = {}

    def checks(self) -> Iterator[Check]:
        absent = [name for name in COMMANDS if shutil.which(name) is None]
        if len(absent) == len(COMMANDS) or not self.used:
            why = "its runs name no pools" if not self.used else "no Slurm command is on PATH"
            yield Check("slurm", "skipped", f"{why}: the sweep executes on this machine, and Slurm is not asked")
            return
        self.on_slurm = True
        if absent:
            remedy = "log in to a login node, or load the cluster's Slurm module ('module load slurm')"
            yield Check("commands", "problem", f"{', '.join(absent)} not on PATH", remedy)
        else:
            yield Check("commands", "ok", f"{', '.join(COMMANDS)} are on PATH")
        began = time.monotonic()
        try:
            self.limits = read_limits()
        except SlurmError as error:
            remedy = "look at 'scontrol ping', and ask the administrators if it is DOWN"
            yield Check("slurmctld", "problem", f"Slurm does not tell its limits: {error}", remedy)
            yield Check("pools", "skipped", "slurmctld does not answer")
        else:
            submit = f", {self.limits.max_submit:,} of yours at a time" if self.limits.max_submit else ""
            words = f"answers ({time.monotonic() - began:.1f} s); {self.limits.max_jobs:,} jobs{submit}"
            yield Check("slurmctld", "ok", f"{words}, {self.limits.max_array_size - 1:,} tasks an array at most")
        yield _accounting(self.sweep)
        if self.limits:
            for name, pool in self.used.items():
                yield from self._pool(name, pool, self.limits)

    def _pool(self, name: str, pool: Pool, limits: ClusterLimits) -> Iterator[Check]:
        cluster = self.sweep.cluster
        where = str(cluster.file if cluster else self.sweep.file)
        found = problems(pool, limits, workers=cluster.section.runs_per_gpu if cluster else 1)
        for words in found:
            yield Check(f"pool {name}", "problem", words, f"edit pool '{name}' in {where}")
        if not found:
            self.usable[name] = pool
            asked = [f"partition '{pool.partition}'", pool.gres, pool.constraint, f"{pool.time_limit_min:,} min"]
            for words in delays(pool, limits, workers=cluster.section.runs_per_gpu if cluster else 1):
                yield Check(f"pool {name}", "warning", words, "its jobs wait until then; ask the administrators")
            yield Check(f"pool {name}", "ok", f"the cluster has it: {', '.join(filter(None, asked))}")
        yield from _account(name, pool, limits, where)


def _accounting(sweep: Sweep) -> Check:
    try:
        call(["sacct", "-n", "-X", "-P", "-S", "now-1minutes", "-o", "JobID"])
    except SlurmError as error:
        words = f"sacct does not answer ({error}): how a job ended is known only for the minutes slurmctld remembers it"
        return Check("accounting", "warning", words, f"leave 'sweep watch {sweep.file}' running while jobs run")
    return Check("accounting", "ok", "sacct answers")


def _account(name: str, pool: Pool, limits: ClusterLimits, where: str) -> Iterator[Check]:
    """Check the account and the qos a pool names against the user's."""
    if pool.account is None and pool.qos is None:
        return
    named = ", ".join(f"{key} '{value}'" for key, value in (("account", pool.account), ("qos", pool.qos)) if value)
    if not limits.accounts:
        why = "accounting does not answer" if limits.accounts is None else "accounting does not know you"
        yield Check(f"account {name}", "skipped", f"{named} cannot be checked: {why}")
        return
    edit = f"edit pool '{name}' in {where}"
    wrong: list[tuple[str, str]] = []
    if pool.account is not None and pool.account not in limits.accounts:
        yours = ", ".join(sorted(limits.accounts))
        wrong.append(("associations", f"account '{pool.account}' is not one of yours: {yours}"))
    allowed = limits.accounts.get(pool.account or "", frozenset().union(*limits.accounts.values()))
    if pool.qos is not None and pool.qos not in allowed:
        yours = ", ".join(sorted(allowed)) or "none"
        wrong.append(("qos", f"qos '{pool.qos}' is not open to you; these are: {yours}"))
    for enforcement, words in wrong:
        if enforcement in limits.enforced:
            yield Check(f"account {name}", "problem", words, edit)
        else:
            yield Check(f"account {name}", "warning", f"{words} (this cluster takes the job all the same)", edit)
    if not wrong:
        yield Check(f"account {name}", "ok", f"accounting knows {named}")


def _data(sweep: Sweep) -> Iterator[Check]:
    for name in dict.fromkeys(placed.cell.spec.run.dataset for placed in sweep.runs):
        try:
            dataset = open_dataset(sweep.data, name)
            dataset.arrays()
        except DataError as error:
            remedy = f"'sweep data prepare {name} --source ARCHIVE --data {sweep.data}'"
            yield Check("data", "problem", str(error).partition("; ")[0], remedy)
            continue
        manifest = dataset.manifest
        kind = "drawn images" if manifest.synthetic else "images"
        size = f"{manifest.train_samples:,} + {manifest.val_samples:,} {kind}"
        yield Check("data", "ok", f"{DATASETS[name].title} is prepared in {sweep.data} ({size})")


def _disk(sweep: Sweep, pools: Mapping[str, Pool]) -> Iterator[Check]:
    """Hold the free space against the checkpoints. A run that is done has none; an interrupted one keeps its two."""
    folder = SweepFolder(sweep.folder)
    sizes = sorted(
        (
            PARAMETERS.get(placed.cell.spec.run.architecture, max(PARAMETERS.values())) * BYTES_A_PARAMETER
            for placed in sweep.runs
            if not folder.run(placed.cell.spec.run.id).result.exists()
        ),
        reverse=True,
    )
    try:
        free = shutil.disk_usage(_existing(sweep.folder)).free
    except OSError as error:
        yield Check("disk", "skipped", f"{sweep.folder}: free space cannot be read: {error.strerror}")
        return
    parallel = min(len(sizes), _parallel(sweep, pools) or len(sizes))
    at_once = (CHECKPOINTS + 1) * sum(sizes[:parallel])
    in_total = CHECKPOINTS * sum(sizes) + sum(sizes[:parallel])
    words = (
        f"{_gigabytes(free)} free in {sweep.folder} (quotas aside); {len(sizes)} unfinished runs need "
        f"{_gigabytes(at_once)} for {parallel} at a time, {_gigabytes(in_total)} if all are under way "
        "(a checkpoint is 3 × parameters × 4 bytes; two are kept, one is being written)"
    )
    remedy = f"free some, or choose another folder with 'output:' in {sweep.file} or '--output DIR'"
    if free < at_once:
        yield Check("disk", "problem", words, remedy)
    elif free < in_total:
        yield Check("disk", "warning", words, remedy)
    else:
        yield Check("disk", "ok", words)


def _parallel(sweep: Sweep, pools: Mapping[str, Pool]) -> int | None:
    """Give how many runs may execute at a time, None if nothing limits them."""
    if pools and sweep.cluster:
        section = sweep.cluster.section
        return section.max_parallel and section.max_parallel * section.runs_per_gpu * len(pools)
    workers = sweep.execution.workers
    return workers if isinstance(workers, int) else default_workers()


def _look_here(sweep: Sweep, nonce: str) -> Findings | str:
    """Run the probe on this machine, in a process of its own; words when it told nothing."""
    command = [sys.executable, *_probe_arguments(sweep, nonce)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=HERE_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"importing torch took more than {HERE_S:.0f} s"
    except OSError as error:
        return str(error)
    return read_findings(done.stdout, nonce) or _last_line(done.stderr) or f"exit code {done.returncode}"


def _torch(here: Findings | str, pools: Mapping[str, Pool], seen: Mapping[str, Findings]) -> Iterator[Check]:
    """Check that torch imports, and has kernels for the GPUs: those of the pools, or those of this machine."""
    broken = here if isinstance(here, str) else here.problems.get("torch")
    if broken is not None:
        remedy = f"reinstall it: '{sys.executable} -m pip install --force-reinstall torch==2.7.1'"
        yield Check("torch", "problem", f"cannot be imported by {sys.executable}: {broken}", remedy)
    elif not isinstance(here, str):
        yield Check("torch", "ok", f"torch {here.torch}, Python {here.python}, kernels for {_listed(here.archs)}")
        if not pools:
            yield from (_kernels("torch", here, gpu.capability, gpu.name) for gpu in dict.fromkeys(here.gpus))
    for name, pool in pools.items():
        wanted = CAPABILITY.get(pool.device)
        there = seen.get(name) or here
        if wanted and not isinstance(there, str) and there.torch and (name not in seen or not there.gpus):
            yield _kernels(f"torch {name}", there, wanted, pool.device)


def _kernels(name: str, findings: Findings, capability: str, device: str) -> Check:
    if has_kernels(findings.archs, capability):
        return Check(name, "ok", f"torch {findings.torch} has kernels for {device} ({capability})")
    words = f"torch {findings.torch} has no kernels for {device} ({capability}), only for {_listed(findings.archs)}"
    return Check(name, "problem", words, NEWER_TORCH)


def has_kernels(archs: Collection[str], capability: str) -> bool:
    """Tell whether code built for these architectures runs on a GPU: sm_XY runs on later minor versions of major X."""
    major, minor = _version(capability)
    built = [_version(arch) for arch in archs if re.fullmatch(r"sm_\d+", arch)]
    return any(of == major and least <= minor for of, least in built) or f"{capability}a" in archs


def _version(capability: str) -> tuple[int, int]:
    digits = capability.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


class _Probe(NamedTuple):
    """A probe under way: the pool, srun's process, and the files that take what it prints."""

    name: str
    pool: Pool
    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path


def _probe(sweep: Sweep, pools: Mapping[str, Pool], nonce: str, seen: dict[str, Findings]) -> Iterator[Check]:
    """Look around on a node of each pool, all pools at once; what was found goes into `seen`, by pool."""
    job_name = f"sweep-doctor-{nonce}"
    with tempfile.TemporaryDirectory(prefix="sweep-doctor-") as scratch:
        probes = []
        try:
            for number, (name, pool) in enumerate(pools.items()):
                out, err = Path(scratch, f"{number}.out"), Path(scratch, f"{number}.err")
                command = srun_command(pool, job_name, [sys.executable, *_probe_arguments(sweep, nonce)])
                with out.open("wb") as stdout, err.open("wb") as stderr:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=stdout,
                        stderr=stderr,
                        env=_outside_of_jobs(os.environ),
                        start_new_session=True,  # Ctrl-C ends the doctor, and the doctor its probes
                    )
                probes.append(_Probe(name, pool, process, out, err))
            deadline = time.monotonic() + PROBE_S
            waiting = list(probes)
            while waiting and time.monotonic() < deadline:
                for probe in [probe for probe in waiting if probe.process.poll() is not None]:
                    waiting.remove(probe)
                    yield from _read_probe(sweep, probe, nonce, seen)
                time.sleep(POLL_S)
            for probe in waiting:
                words = f"the probe did not end within {PROBE_S:.0f} s"
                yield Check(f"node {probe.name}", "problem", words, f"look at 'sinfo -p {probe.pool.partition}'")
        except OSError as error:
            yield Check("nodes", "skipped", f"srun could not be started: {error}")
        finally:
            _end([probe.process for probe in probes], job_name)


def srun_command(pool: Pool, job_name: str, command: Sequence[str]) -> list[str]:
    """Give the srun that runs a command on a node of a pool, as its jobs would be, if one is free soon."""
    options = {
        "job-name": job_name,
        "partition": pool.partition,
        "gres": pool.gres,
        "constraint": pool.constraint,
        "account": pool.account,
        "qos": pool.qos,
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": f"{round(min(pool.memory_gb, PROBE_MEMORY_GB) * 1024)}M",
        "time": str(PROBE_MIN),
        "immediate": str(FREE_NODE_S),
    }
    script = "\n".join([*pool.setup, f"exec {shlex.join(command)}"])
    return ["srun", *(f"--{key}={value}" for key, value in options.items() if value), "bash", "-c", script]


def _probe_arguments(sweep: Sweep, nonce: str) -> list[str]:
    folder, data = str(sweep.folder.absolute()), str(sweep.data.absolute())
    return ["-m", "slurm.probe", "--folder", folder, "--data", data, "--nonce", nonce]


def _outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would make srun a step of the job this shell runs in, or change what it asks for."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {key: value for key, value in environment.items() if key in kept or not key.startswith(("SLURM_", "SRUN_"))}


def _end(processes: Sequence["subprocess.Popen[bytes]"], job_name: str) -> None:
    """End the probes that still run: srun gives its job back when asked to; the rest is cancelled by name."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if running:
        with contextlib.suppress(SlurmError):  # Slurm ends them after PROBE_MIN by itself
            call(["scancel", f"--name={job_name}"])


def _read_probe(sweep: Sweep, probe: _Probe, nonce: str, seen: dict[str, Findings]) -> Iterator[Check]:
    name = f"node {probe.name}"
    said = probe.err.read_text(errors="replace")
    found = read_findings(probe.out.read_text(errors="replace"), nonce)
    if found is not None:
        seen[probe.name] = found
        yield from judge(sweep, name, probe.pool, found)
    elif re.search(r"nodes are busy|Immediate execution impossible|Resources temporarily unavailable", said, re.I):
        words = f"no node of pool {probe.name} was free within {FREE_NODE_S} s"
        yield Check(name, "skipped", f"{words}; the check is repeated by the next 'sweep doctor'")
    elif "Unable to allocate resources" in said or "srun: error: Invalid" in said:
        words = f"Slurm refuses its jobs: {_last_line(said).removeprefix('srun: error: ')}"
        where = sweep.cluster.file if sweep.cluster else sweep.file
        yield Check(name, "problem", words, f"edit pool '{probe.name}' in {where}")
    else:
        said = _last_line(_without_srun(said)) or f"exit code {probe.process.returncode}"
        what = "setup or Python" if probe.pool.setup else "Python"
        words = f"{what} failed there, before {sys.executable} could tell anything: {said}"
        remedy = f"keep {sys.prefix} on a file system that the nodes see; 'setup' of the pool can load what it needs"
        yield Check(name, "problem", words, remedy)


def judge(sweep: Sweep, name: str, pool: Pool, found: Findings) -> Iterator[Check]:
    """Say what of a node's findings stands in the way of runs; if nothing does, what it has."""
    output, data = sweep.folder.absolute(), sweep.data.absolute()
    other = "choose a folder that the nodes share with this machine, with"
    checks: list[tuple[bool, str, str, str]] = [
        (found.folder, "folder", f"does not see {output}", f"{other} 'output:' or '--output DIR'"),
        (found.writable, "writable", f"cannot write {output}", f"{other} 'output:' or '--output DIR'"),
        (found.data or not data.exists(), "data", f"does not see {data}", f"{other} 'data:' or '--data DIR'"),
        (found.torch is not None, "torch", "cannot import torch", f"'{sys.executable} -m pip install torch==2.7.1'"),
    ]
    wrong = [
        Check(name, "problem", f"{found.node} {words}" + _because(found, key), remedy)
        for fine, key, words, remedy in checks
        if not fine
    ]
    if found.torch is not None and pool.device != "cpu":
        wrong += _judge_gpus(name, pool, found)
    yield from wrong
    if not any(check.state == "problem" for check in wrong):
        gpus = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in found.gpus) or "no GPU"
        has = f"Python {found.python}, torch {found.torch}, {gpus}"
        shares = "sees the output folder" + (" and the data" if found.data else "")
        yield Check(name, "ok", f"{found.node} {shares}, and writes; {has}")


def _judge_gpus(name: str, pool: Pool, found: Findings) -> Iterator[Check]:
    if not found.gpus or "gpus" in found.problems:
        words = f"torch {found.torch} can use no GPU on {found.node}" + _because(found, "gpus")
        asked = f"srun -p {pool.partition} --gres={pool.gres or 'gpu:1'} nvidia-smi"
        yield Check(name, "problem", words, f"set 'gres' of the pool; '{asked}' shows what its jobs get")
    for gpu in dict.fromkeys(found.gpus):
        check = _kernels(name, found, gpu.capability, f"{gpu.name} on {found.node}")
        if check.state == "problem":
            yield check
        expected = CAPABILITY.get(pool.device)
        if expected and gpu.capability != expected:
            words = f"{found.node} has {gpu.name} ({gpu.capability}), the pool says device '{pool.device}' ({expected})"
            right = next((device for device, has in CAPABILITY.items() if has == gpu.capability), None)
            remedy = f"set 'device: {right}'" if right else "choose the nearest 'device'"
            yield Check(name, "warning", words, f"{remedy} or another 'gres'; the cost estimates go by it")


def _because(found: Findings, key: str) -> str:
    return f" ({found.problems[key]})" if key in found.problems else ""


@contextlib.contextmanager
def _marked(folder: Path, nonce: str) -> Iterator[None]:
    """Leave a mark in a folder for probes to find, and remove it, with the folders made for it, in the end."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark(folder, nonce).write_bytes(b"\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in folder.glob(f"{mark(folder, nonce).name}*"):  # also what a killed probe left
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else has moved in meanwhile
            for path in made:
                path.rmdir()


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path.absolute(), *path.absolute().parents) if candidate.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _listed(archs: Sequence[str]) -> str:
    return ", ".join(archs) or "no GPU at all"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _without_srun(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(("srun:", "slurmstepd:")))

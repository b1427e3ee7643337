"""Look around where runs would execute: on a compute node of each pool through srun, and on this machine.

What is written to look, is removed; jobs that were started are ended with the doctor.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slurm.causes import SLURM_TALKS
from slurm.commands import SlurmError, call, on, without_options
from slurm.container import launched, seeing, srun_options
from slurm.devices import Device, device_called
from slurm.jobs import ContainerRecord
from slurm.pools import Pool
from slurm.preamble import preamble, read_failure
from slurm.probe import Findings, Gpu, mark, read_findings
from slurm.submission import resources
from sweep.config.schema import Sweep
from sweep.doctor.check import Check, Verdict, kernels
from sweep.status.folder import SweepFolder

FREE_NODE_S = 30  # how long a probe waits for a node
PROBE_MIN = 2
PROBE_MEMORY_GB = 4.0  # importing torch and starting CUDA takes two
PROBE_S = FREE_NODE_S + 60 * PROBE_MIN + 30.0  # Slurm ends a probe before this
HERE_S = 120.0  # importing torch from a cold network file system has been seen to take a minute
POLL_S = 0.1
# srun says why it started nothing in words only; its exit code is 1 for all of it.
BUSY = re.compile(r"nodes are busy|Immediate execution impossible|Resources temporarily unavailable", re.IGNORECASE)
REFUSED = re.compile(r"Unable to allocate resources|srun: error: Invalid")
UNKNOWN_OPTION = re.compile(r"^srun: (unrecognized option .*)$", re.MULTILINE)  # of 'sbatch', or Pyxis is not there


def look_here(sweep: Sweep, nonce: str) -> Findings | str:
    """Run the probe on this machine, in a process of its own. Returns its findings, or why there are none."""
    command = launched(None, *_probe_arguments(sweep, nonce))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=HERE_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"importing torch took more than {HERE_S:.0f} s"
    except OSError as error:
        return str(error)
    return read_findings(done.stdout, nonce) or _last_line(done.stderr) or f"exit code {done.returncode}"


class Probe(NamedTuple):
    """A short job under way: the pool, srun's process, and the files that take what it prints."""

    name: str
    pool: Pool
    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path


class Probed(NamedTuple):
    """A short job that has ended, with what it printed. code: None where it did not end in time."""

    name: str
    pool: Pool
    code: int | None
    out: str
    err: str


def probe_pools(sweep: Sweep, pools: Mapping[str, Pool], nonce: str, seen: dict[str, Findings]) -> Iterator[Check]:
    """Look around on a node of each pool, all pools at once; what was found goes into `seen`, by pool."""
    job_name = f"sweep-doctor-{nonce}"
    commands = {}
    for name, pool in pools.items():
        container = _container(sweep, pool)
        command = srun_command(pool, job_name, launched(container, *_probe_arguments(sweep, nonce)), container)
        commands[name] = (pool, command)
    try:
        for probed in run_probes(commands, job_name):
            yield from _read_probe(sweep, probed, nonce, seen)
    except OSError as error:
        yield Check("nodes", Verdict.SKIPPED, f"srun could not be started: {error}")


def run_probes(commands: Mapping[str, tuple[Pool, Sequence[str]]], job_name: str) -> Iterator[Probed]:
    """Run an srun for each pool, all at once, and return each as it ends. Those that are left when it stops are ended.

    commands: by a name, the pool and the command. Raises OSError where srun cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="sweep-probe-") as scratch:
        probes: list[Probe] = []
        try:
            for number, (name, (pool, command)) in enumerate(commands.items()):
                out, err = Path(scratch, f"{number}.out"), Path(scratch, f"{number}.err")
                with out.open("wb") as stdout, err.open("wb") as stderr:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=stdout,
                        stderr=stderr,
                        env=without_options(os.environ),
                        start_new_session=True,  # Ctrl-C ends what asked, and that its probes
                    )
                probes.append(Probe(name, pool, process, out, err))
            deadline = time.monotonic() + PROBE_S
            waiting = list(probes)
            while waiting and time.monotonic() < deadline:
                for probe in [probe for probe in waiting if probe.process.poll() is not None]:
                    waiting.remove(probe)
                    yield _ended(probe)
                time.sleep(POLL_S)
            yield from map(_ended, waiting)
        finally:
            _end(probes, job_name)


def _ended(probe: Probe) -> Probed:
    out, err = (path.read_text(errors="replace") for path in (probe.out, probe.err))
    return Probed(probe.name, probe.pool, probe.process.poll(), out, err)


def _container(sweep: Sweep, pool: Pool) -> ContainerRecord | None:
    """What a pool's jobs run in, with the folders that are there already."""
    folders = [path for path in SweepFolder(sweep.folder).seen_by_jobs(sweep.data) if path.exists()]
    return seeing(resources(pool, 1), folders).container


def srun_command(
    pool: Pool, job_name: str, command: Sequence[str], container: ContainerRecord | None = None
) -> list[str]:
    """The srun command that runs a command on a node of a pool as the pool's jobs run, if a node is free soon."""
    options = {
        "job-name": job_name,
        "clusters": pool.clusters,
        "partition": pool.partition,
        "gres": pool.gres,
        "constraint": pool.constraint,
        "account": pool.account,
        "qos": pool.qos,
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": f"{round(min(pool.memory_gb, PROBE_MEMORY_GB) * 1024)}M" if pool.memory_gb else None,
        "exclude": ",".join(pool.exclude),
        "time": str(PROBE_MIN),
        "immediate": str(FREE_NODE_S),
    }
    script = "\n".join([*preamble(pool.modules, pool.setup), f"exec {shlex.join(command)}"])
    given = [f"--{key}={value}" for key, value in options.items() if value]
    more = [f"--{key}" if value is True else f"--{key}={value}" for key, value in pool.sbatch.items()]
    more += srun_options(container)
    if pool.export == "all":
        return ["srun", *given, *more, "bash", "-c", script]
    # sbatch gives such a job what a login on its node has; srun, which finds no program there by its name, does not.
    names = "NONE" if pool.export == "none" else ",".join(pool.export)
    return ["srun", *given, *more, f"--export={names}", "/bin/bash", "-l", "-c", script]


def _probe_arguments(sweep: Sweep, nonce: str) -> list[str]:
    folder, data = str(sweep.folder.absolute()), str(sweep.data.absolute())
    return ["slurm.probe", "--folder", folder, "--data", data, "--nonce", nonce]


def _end(probes: Sequence[Probe], job_name: str) -> None:
    """End the probes that still run: srun gives its job back when asked to; the rest is cancelled by name."""
    running = [probe for probe in probes if probe.process.poll() is None]
    for probe in running:
        probe.process.terminate()
    for probe in running:
        try:
            probe.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            probe.process.kill()
            probe.process.wait()
    for clusters in {probe.pool.clusters for probe in running}:
        with contextlib.suppress(SlurmError):  # Slurm ends them after PROBE_MIN by itself
            call(["scancel", *on(clusters), f"--name={job_name}"])


def _read_probe(sweep: Sweep, probe: Probed, nonce: str, seen: dict[str, Findings]) -> Iterator[Check]:
    name = f"node {probe.name}"
    said = probe.err
    found = read_findings(probe.out, nonce)
    if probe.code is None:
        which = f" -p {probe.pool.partition}" if probe.pool.partition else ""
        yield Check(name, Verdict.PROBLEM, f"the probe did not end within {PROBE_S:.0f} s", f"look at 'sinfo{which}'")
    elif found is not None:
        seen[probe.name] = found
        yield from judge(sweep, name, probe.pool, found)
    elif BUSY.search(said):
        words = f"no node of pool {probe.name} was free within {FREE_NODE_S} s"
        yield Check(name, Verdict.SKIPPED, f"{words}; the check is repeated by the next 'sweep doctor'")
    elif REFUSED.search(said) or UNKNOWN_OPTION.search(said):
        unknown = UNKNOWN_OPTION.search(said)
        why = unknown[1] if unknown else _last_line(said).removeprefix("srun: error: ")
        words = f"Slurm refuses its jobs: {why}"
        where = sweep.cluster.file if sweep.cluster else sweep.file
        yield Check(name, Verdict.PROBLEM, words, f"edit pool '{probe.name}' in {where}")
    elif early := read_failure(said):
        code = probe.code if early.code is None else early.code
        words = f"'{early.line}' failed there with exit code {code}" + (f": {early.output}" if early.output else "")
        where = sweep.cluster.file if sweep.cluster else sweep.file
        yield Check(name, Verdict.PROBLEM, words, f"edit 'modules' or 'setup' of pool '{probe.name}' in {where}")
    else:
        said = _last_line(_without_srun(said)) or f"exit code {probe.code}"
        inside = probe.pool.container
        python = f"{inside.python} of {inside.image}" if inside else sys.executable
        words = f"Python failed there, before {python} could tell anything: {said}"
        remedy = f"keep {sys.prefix} on a file system that the nodes see; 'setup' of the pool can load what it needs"
        if inside:
            remedy = f"try '{inside.runtime}' on a node by hand; the image needs Python 3.10 or newer"
        yield Check(name, Verdict.PROBLEM, words, remedy)


def judge(sweep: Sweep, name: str, pool: Pool, found: Findings) -> Iterator[Check]:
    """What on a node would stop runs; where nothing would, what the node has."""
    output, data = sweep.folder.absolute(), sweep.data.absolute()
    install = f"'{sys.executable} -m pip install torch==2.7.1'"
    if pool.container:
        install = f"use another image than {pool.container.image}, or another 'container.python'"
    other = "choose a folder that the nodes share with this machine, with"
    checks: list[tuple[bool, str, str, str]] = [
        (found.folder, "folder", f"does not see {output}", f"{other} 'output:' or '--output DIR'"),
        (found.writable, "writable", f"cannot write {output}", f"{other} 'output:' or '--output DIR'"),
        (found.data or not data.exists(), "data", f"does not see {data}", f"{other} 'data:' or '--data DIR'"),
        (found.torch is not None, "torch", "cannot import torch", install),
    ]
    wrong = [
        Check(name, Verdict.PROBLEM, f"{found.node} {words}" + _because(found, key), remedy)
        for fine, key, words, remedy in checks
        if not fine
    ]
    if found.torch is not None and pool.device.is_gpu:
        wrong += _judge_gpus(name, pool, found)
    yield from wrong
    if not any(check.state is Verdict.PROBLEM for check in wrong):
        gpus = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in found.gpus) or "no GPU"
        has = f"Python {found.python}, torch {found.torch}, {gpus}"
        shares = "sees the output folder" + (" and the data" if found.data else "")
        yield Check(name, Verdict.OK, f"{found.node} {shares}, and writes; {has}")


def _judge_gpus(name: str, pool: Pool, found: Findings) -> Iterator[Check]:
    if not found.gpus or "gpus" in found.problems:
        words = f"torch {found.torch} can use no GPU on {found.node}" + _because(found, "gpus")
        where = f"-p {pool.partition} " if pool.partition else ""
        asked = f"srun {where}--gres={pool.gres or 'gpu:1'} nvidia-smi"
        yield Check(name, Verdict.PROBLEM, words, f"set 'gres' of the pool; '{asked}' shows what its jobs get")
    for words in found.troubles:
        remedy = "tell the administrators; 'sweep retry' sends a run that fails there to another node"
        yield Check(name, Verdict.WARNING, f"{found.node}: {words}", remedy)
    for gpu in dict.fromkeys(found.gpus):
        check = kernels(name, found, gpu.capability, f"{gpu.name} on {found.node}")
        if check.state is Verdict.PROBLEM:
            yield check
        if _is_another(gpu, pool.device):
            said = ", ".join(filter(None, (f"'{pool.device.name}'", pool.device.capability)))
            words = f"{found.node} has {gpu.name} ({gpu.capability}), the pool says device {said}"
            right = device_called(gpu.name)
            remedy = f"set 'device: {right.name}'" if right else "describe it ('device: {name: ..., memory_gb: ...}')"
            yield Check(name, Verdict.WARNING, words, f"{remedy} or another 'gres'; the estimates go by it")


def _is_another(gpu: Gpu, device: Device) -> bool:
    """Whether a GPU is clearly not the device that its pool says; of one described there only the capability counts."""
    if device.capability not in (None, gpu.capability):
        return True
    return not device.is_own and device_called(gpu.name) not in (None, device)


def _because(found: Findings, key: str) -> str:
    return f" ({found.problems[key]})" if key in found.problems else ""


@contextlib.contextmanager
def marked(folder: Path, nonce: str) -> Iterator[None]:
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


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _without_srun(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not SLURM_TALKS.match(line))

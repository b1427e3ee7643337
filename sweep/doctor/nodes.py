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
from slurm.commands import SlurmError, call, without_options
from slurm.pools import Pool
from slurm.probe import Findings, mark, read_findings
from sweep.config.schema import Sweep
from sweep.doctor.check import CAPABILITY, Check, Verdict, kernels

FREE_NODE_S = 30  # how long a probe waits for a node
PROBE_MIN = 2
PROBE_MEMORY_GB = 4.0  # importing torch and starting CUDA takes two
PROBE_S = FREE_NODE_S + 60 * PROBE_MIN + 30.0  # Slurm ends a probe before this
HERE_S = 120.0  # importing torch from a cold network file system has been seen to take a minute
POLL_S = 0.1
# srun says why it started nothing in words only; its exit code is 1 for all of it.
BUSY = re.compile(r"nodes are busy|Immediate execution impossible|Resources temporarily unavailable", re.IGNORECASE)
REFUSED = re.compile(r"Unable to allocate resources|srun: error: Invalid")


def look_here(sweep: Sweep, nonce: str) -> Findings | str:
    """Run the probe on this machine, in a process of its own. Returns its findings, or why there are none."""
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


class _Probe(NamedTuple):
    """A probe under way: the pool, srun's process, and the files that take what it prints."""

    name: str
    pool: Pool
    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path


def probe_pools(sweep: Sweep, pools: Mapping[str, Pool], nonce: str, seen: dict[str, Findings]) -> Iterator[Check]:
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
                        env=without_options(os.environ),
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
                yield Check(f"node {probe.name}", Verdict.PROBLEM, words, f"look at 'sinfo -p {probe.pool.partition}'")
        except OSError as error:
            yield Check("nodes", Verdict.SKIPPED, f"srun could not be started: {error}")
        finally:
            _end([probe.process for probe in probes], job_name)


def srun_command(pool: Pool, job_name: str, command: Sequence[str]) -> list[str]:
    """The srun command that runs a command on a node of a pool as the pool's jobs run, if a node is free soon."""
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
        "mem": f"{round(min(pool.memory_gb, PROBE_MEMORY_GB) * 1024)}M" if pool.memory_gb else None,
        "exclude": ",".join(pool.exclude),
        "time": str(PROBE_MIN),
        "immediate": str(FREE_NODE_S),
    }
    script = "\n".join([*pool.setup, f"exec {shlex.join(command)}"])
    given = [f"--{key}={value}" for key, value in options.items() if value]
    more = [f"--{key}" if value is True else f"--{key}={value}" for key, value in pool.sbatch.items()]
    return ["srun", *given, *more, "bash", "-c", script]


def _probe_arguments(sweep: Sweep, nonce: str) -> list[str]:
    folder, data = str(sweep.folder.absolute()), str(sweep.data.absolute())
    return ["-m", "slurm.probe", "--folder", folder, "--data", data, "--nonce", nonce]


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
    elif BUSY.search(said):
        words = f"no node of pool {probe.name} was free within {FREE_NODE_S} s"
        yield Check(name, Verdict.SKIPPED, f"{words}; the check is repeated by the next 'sweep doctor'")
    elif REFUSED.search(said):
        words = f"Slurm refuses its jobs: {_last_line(said).removeprefix('srun: error: ')}"
        where = sweep.cluster.file if sweep.cluster else sweep.file
        yield Check(name, Verdict.PROBLEM, words, f"edit pool '{probe.name}' in {where}")
    else:
        said = _last_line(_without_srun(said)) or f"exit code {probe.process.returncode}"
        what = "setup or Python" if probe.pool.setup else "Python"
        words = f"{what} failed there, before {sys.executable} could tell anything: {said}"
        remedy = f"keep {sys.prefix} on a file system that the nodes see; 'setup' of the pool can load what it needs"
        yield Check(name, Verdict.PROBLEM, words, remedy)


def judge(sweep: Sweep, name: str, pool: Pool, found: Findings) -> Iterator[Check]:
    """What on a node would stop runs; where nothing would, what the node has."""
    output, data = sweep.folder.absolute(), sweep.data.absolute()
    other = "choose a folder that the nodes share with this machine, with"
    checks: list[tuple[bool, str, str, str]] = [
        (found.folder, "folder", f"does not see {output}", f"{other} 'output:' or '--output DIR'"),
        (found.writable, "writable", f"cannot write {output}", f"{other} 'output:' or '--output DIR'"),
        (found.data or not data.exists(), "data", f"does not see {data}", f"{other} 'data:' or '--data DIR'"),
        (found.torch is not None, "torch", "cannot import torch", f"'{sys.executable} -m pip install torch==2.7.1'"),
    ]
    wrong = [
        Check(name, Verdict.PROBLEM, f"{found.node} {words}" + _because(found, key), remedy)
        for fine, key, words, remedy in checks
        if not fine
    ]
    if found.torch is not None and pool.device != "cpu":
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
        asked = f"srun -p {pool.partition} --gres={pool.gres or 'gpu:1'} nvidia-smi"
        yield Check(name, Verdict.PROBLEM, words, f"set 'gres' of the pool; '{asked}' shows what its jobs get")
    for words in found.troubles:
        remedy = "tell the administrators; 'sweep retry' sends a run that fails there to another node"
        yield Check(name, Verdict.WARNING, f"{found.node}: {words}", remedy)
    for gpu in dict.fromkeys(found.gpus):
        check = kernels(name, found, gpu.capability, f"{gpu.name} on {found.node}")
        if check.state is Verdict.PROBLEM:
            yield check
        expected = CAPABILITY.get(pool.device)
        if expected and gpu.capability != expected:
            words = f"{found.node} has {gpu.name} ({gpu.capability}), the pool says device '{pool.device}' ({expected})"
            right = next((device for device, has in CAPABILITY.items() if has == gpu.capability), None)
            remedy = f"set 'device: {right}'" if right else "choose the nearest 'device'"
            yield Check(name, Verdict.WARNING, words, f"{remedy} or another 'gres'; the cost estimates go by it")


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

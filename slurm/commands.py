"""Call Slurm's commands: each with a timeout, nothing of the shell's settings, times as seconds since 1970.

What Slurm's own words mean is decided here, once: elsewhere the kind of error decides, and nobody reads its sentence.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from slurm.timeouts import CALL_S, SBATCH_S

# Slurm's commands take options from the environment: an alias's, a site's, or those of the job that this shell runs in.
# They beat the lines of a job script and change what is listed, and how.
_OPTIONS = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_", "SPRIO_")
_NAMES_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER")
# What sbatch says that leaves open whether the job was taken, and may be yet. In other words it is a no, if it is not.
_UNCLEAR = re.compile(
    r"timed out|unable to contact|communication|connection|transport|zero bytes|standby|unexpected message|"
    r"protocol|insane|authentication|munge|munged|try again|receive",
    re.IGNORECASE,
)
_SAID = re.compile(r"(?:submission failed: |allocation failure: |sbatch: error: |sbatch: )(.+)")
_TIMED_OUT = (124, 137)  # the exit codes of `timeout`, and of what it had to kill
_BY_SIGNAL = 128  # exit codes above this are those of what a signal killed
_USAGE = 255  # but this is an option that sbatch does not know


class SlurmError(Exception):
    """A Slurm command that gave no answer, or said no; the message is one sentence."""


class NotConfigured(SlurmError):
    """Slurm's commands are here, and know of no cluster."""


class AccountingDisabled(SlurmError):
    """The cluster keeps no account of its jobs: sacct will never answer here."""


class NoAnswer(SlurmError):
    """Nothing is known of what the command asked for: not installed, timed out, or the daemon is unreachable."""


class NoSuchJob(SlurmError):
    """Slurm has no job of that number, or none that may be seen."""


class NoSuchCluster(SlurmError):
    """Accounting knows no cluster of that name, or cannot be asked for it."""


class Refused(SlurmError):
    """Slurm clearly did not take the array."""


class Unclear(SlurmError):
    """Slurm gave no clear answer: the array may have been taken."""


def options_in(environment: Iterable[str]) -> list[str]:
    """Name the variables by which a shell would change what Slurm's commands do, or what a job inherits."""
    return sorted(name for name in environment if name.startswith(_OPTIONS) and name not in _NAMES_THE_CLUSTER)


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Slurm's commands do what their command line says."""
    left_out = options_in(environment)
    return {name: value for name, value in environment.items() if name not in left_out}


def on(clusters: str | None) -> list[str]:
    """The option of every command of Slurm's that has it speak to another cluster; none for the one it speaks to."""
    return [] if clusters is None else [f"--clusters={clusters}"]


def call(command: Sequence[str], *, timeout_s: float = CALL_S) -> str:
    """Run a Slurm command and return its standard output.

    Raises NoAnswer when it is missing or does not end in time, SlurmError or a kind of it when it fails, with the line
    that tells the kind.
    """
    done = _run(command, timeout_s)
    if done.returncode != 0:
        words = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        kind = _kind(done.stderr or done.stdout)
        telling = [line for line in words if _kind(line) is kind]  # 24.11 adds another below
        raise kind((telling or words or [f"{command[0]} failed with exit code {done.returncode}"])[-1])
    return done.stdout


def earliest_start(options: Sequence[str]) -> float | None:
    """Have sbatch say when a job with these options could start, in seconds since 1970, without submitting it.

    None where it takes the job and does not say. Raises Refused, Unclear, NoAnswer.
    """
    done = _run(["sbatch", "--test-only", *options, "--wrap=true"], CALL_S)
    if done.returncode != 0:
        raise sbatch_failure(done.stdout + done.stderr, done.returncode)
    found = re.search(r"to start at (\d+)", done.stdout + done.stderr)
    return float(found[1]) if found else None


def _run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm's to its end, however it ends. Raises NoAnswer."""
    name = command[0]
    environment = {**without_options(os.environ), "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
    try:
        return subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
        )
    except FileNotFoundError as error:
        raise NoAnswer(f"{name} is not on PATH; is this a login node?") from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{name} did not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise NoAnswer(f"{name} could not be started: {error}") from error


def sbatch_failure(said: str, exit_code: int | None) -> SlurmError:
    """Make an error of a failed sbatch: Refused where Slurm answered, to be confirmed by its lists, else Unclear."""
    if exit_code in _TIMED_OUT:
        return Unclear(f"sbatch did not answer within {SBATCH_S} s")
    reasons = _SAID.findall(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    sentence = reasons[-1].strip() if reasons else lines[-1] if lines else f"sbatch failed with exit code {exit_code}"
    ended = exit_code is not None and (0 < exit_code < _BY_SIGNAL or exit_code == _USAGE)
    answered = ended and not _UNCLEAR.search(said)
    return Refused(sentence) if answered else Unclear(sentence)


def _kind(said: str) -> type[SlurmError]:
    """Which failure a command's words tell of; Slurm has no exit codes for these."""
    if "Could not establish a configuration source" in said:
        return NotConfigured
    if re.search(r"Invalid job id specified|^Job \S+ not found", said, re.MULTILINE):
        return NoSuchJob
    if "known by database" in said or "invalid entry for --cluster" in said:
        return NoSuchCluster
    return AccountingDisabled if "accounting storage is disabled" in said else SlurmError

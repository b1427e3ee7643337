"""Call Slurm's commands: each with a timeout, times as seconds since 1970, failures told apart."""

import os
import subprocess
from collections.abc import Sequence

TIMEOUT_S = 20.0  # slurmctld's own clients give up after 10 s by default; a hung munged never answers


class SlurmError(Exception):
    """A Slurm command that gave no answer, or said no; the message is one sentence."""


class NotConfigured(SlurmError):
    """Slurm's commands are here, and know of no cluster."""


class AccountingDisabled(SlurmError):
    """The cluster keeps no account of its jobs: sacct will never answer here."""


class NoAnswer(SlurmError):
    """Nothing is known of what the command asked for: not installed, timed out, or the daemon is unreachable."""


def call(command: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> str:
    """Run a Slurm command and give its standard output.

    Raises NoAnswer when it is missing or does not end in time, SlurmError with its last words when it fails.
    """
    name = command[0]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
        )
    except FileNotFoundError as error:
        raise NoAnswer(f"{name} is not on PATH; is this a login node?") from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{name} did not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise NoAnswer(f"{name} could not be started: {error}") from error
    if done.returncode != 0:
        words = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _kind(done.stderr or done.stdout)(
            words[-1] if words else f"{name} failed with exit code {done.returncode}"
        )
    return done.stdout


def _kind(said: str) -> type[SlurmError]:
    """Which failure a command's words tell of; Slurm has no exit codes for these."""
    if "Could not establish a configuration source" in said:
        return NotConfigured
    return AccountingDisabled if "accounting storage is disabled" in said else SlurmError

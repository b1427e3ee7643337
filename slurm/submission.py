"""Send a job array to Slurm through submitit, or write the very script that would be sent.

A job reads its runs from the bundle the submission left on disk, so nothing is pickled, and a job whose submitter died
at any moment has all it needs. A tag, the array's job name, finds it again in Slurm's own lists.
"""

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slurm.commands import (
    NoSuchJob,
    NotConfigured,
    Refused,
    SlurmError,
    Unclear,
    call,
    on,
    options_in,
    sbatch_failure,
)
from slurm.container import launched, srun_options
from slurm.jobs import ArrayRecord, ContainerRecord, Resources
from slurm.origin import is_named
from slurm.pools import Pool, several_gpus
from slurm.preamble import preamble
from slurm.timeouts import KILL_AFTER_S, SBATCH_S, SIGNAL_S

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor


def resources(pool: Pool, workers: int, gpus: int = 1) -> Resources:
    """What a job in a pool asks for when it executes `workers` runs at a time, or one run on so many GPUs."""
    inside = pool.container
    return Resources(
        clusters=pool.clusters,
        partition=pool.partition,
        gres=several_gpus(pool.gres, gpus),
        constraint=pool.constraint,
        account=pool.account,
        qos=pool.qos,
        cpus=pool.cpus * workers * gpus,
        memory_gb=None if pool.memory_gb is None else pool.memory_gb * workers * gpus,
        time_limit_min=pool.time_limit_min,
        export=pool.export,
        modules=pool.modules,
        setup=pool.setup,
        container=None
        if inside is None
        else ContainerRecord(
            image=inside.image,
            runtime=inside.runtime,
            python=inside.python,
            mounts=inside.bind,
            gpu=pool.device != "cpu",
        ),
        exclude=pool.exclude,
        sbatch=pool.sbatch,
    )


def script(array: ArrayRecord, folder: Path, bundle: Path, *, max_parallel: int | None) -> str:
    """The job script that `send` submits."""
    executor = _prepared(array, folder, bundle, max_parallel)
    executor.parameters["map_count"] = len(array.tasks)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def send(array: ArrayRecord, folder: Path, bundle: Path, *, max_parallel: int | None) -> str:
    """Submit an array and return its job id. folder takes the job script and the jobs' output.

    Raises Refused when Slurm said no, Unclear when nobody can say; then `settle` finds out later.
    """
    executor = _prepared(array, folder, bundle, max_parallel)
    from submitit.core.utils import FailedJobError

    said = io.StringIO()  # submitit prints sbatch's words; they go into the one sentence instead
    try:
        with contextlib.redirect_stderr(said):
            jobs = executor.map_array(len, array.tasks)
    except FailedJobError as error:
        ended = error.__cause__ if isinstance(error.__cause__, subprocess.CalledProcessError) else None
        printed = f"{ended.output}\n{error}" if ended else str(error)
        failure = sbatch_failure(printed, ended.returncode if ended else None)
        raise confirmed_refusal(failure, array.tag, array.resources.clusters) from error
    return str(jobs[0].job_id.partition("_")[0])


def confirmed_id(said: str, tag: str, clusters: str | None = None) -> str:
    """Find the id of the job just submitted in what sbatch said, and see that the job is ours.

    A site's own notices may stand beside it, with numbers of their own. Raises Unclear.
    """
    named = re.findall(r"^(\d+)(?:;\S*)?\s*$", said, re.MULTILINE)
    if not named:
        raise Unclear("sbatch ended without an error, and without naming a job")
    for job in reversed(named):
        try:
            shown = call(["scontrol", *on(clusters), "-o", "show", "job", job])
        except SlurmError as error:
            raise Unclear(f"sbatch named job {job}, which scontrol does not confirm: {error}") from error
        if is_named(shown, tag) and f"({os.getuid()})" in shown:
            return str(job)
    raise Unclear(f"sbatch named job {', '.join(named)}, which is another's")


def confirmed_refusal(failure: SlurmError, tag: str, clusters: str | None = None) -> SlurmError:
    """A refusal in whatever words is one when Slurm, asked by name, does not have the array."""
    if not isinstance(failure, Refused):
        return failure
    try:
        listed = call(["squeue", *on(clusters), "-h", "-a", f"--user={os.getuid()}", f"--name={tag}", "-o", "%j"])
    except SlurmError as error:
        return Unclear(f"{failure}; whether Slurm has the jobs all the same is not known: {error}")
    return Unclear(f"{failure}; Slurm has the jobs all the same") if tag in listed.split() else failure


def cancel(name: str, jobs: Sequence[str], clusters: str | None = None) -> None:
    """Cancel array tasks ("12_3") or whole arrays ("12") of this name, and none but one's own. Raises SlurmError."""
    for start in range(0, len(jobs), 200):
        own = [*on(clusters), f"--user={os.getuid()}", f"--name={name}"]
        with contextlib.suppress(NoSuchJob):  # one that has ended meanwhile; the others are cancelled all the same
            call(["scancel", *own, *jobs[start : start + 200]])


def log_path(folder: Path, job: str) -> Path:
    """The output file of an array task, named as submitit names it."""
    return folder / f"{job}_0_log.out"


def _prepared(array: ArrayRecord, folder: Path, bundle: Path, max_parallel: int | None) -> "SlurmExecutor":
    wanted = array.resources
    executor = _executor(folder, array.tag, wanted.clusters, _job_command(bundle, wanted.container))
    executor.update_parameters(
        job_name=array.tag,
        partition=wanted.partition,
        gres=wanted.gres,
        constraint=wanted.constraint,
        account=wanted.account,
        qos=wanted.qos,
        exclude=",".join(wanted.exclude) or None,
        cpus_per_task=wanted.cpus,
        mem=None if wanted.memory_gb is None else f"{round(wanted.memory_gb * 1024)}MB",
        time=wanted.time_limit_min,
        setup=preamble(wanted.modules, wanted.setup) or None,
        signal_delay_s=_signal_delay_s(wanted.time_limit_min),
        # srun does not take over the CPUs of its job since Slurm 22.05; and of its variables only what sbatch was told.
        srun_args=["--export=ALL", "--cpus-per-task", str(wanted.cpus), *srun_options(wanted.container)],
        array_parallelism=max_parallel or len(array.tasks),
        stderr_to_stdout=True,
        wckey=None,
        comment=f"sweep: {sum(map(len, array.tasks))} runs",
        additional_parameters={**wanted.sbatch, **_placed(wanted), "requeue": True},
    )
    return executor


def _placed(wanted: Resources) -> dict[str, str]:
    """The options for another cluster, and for less than all of the submitter's variables."""
    names = {"all": None, "none": "NONE"}[wanted.export] if isinstance(wanted.export, str) else ",".join(wanted.export)
    return {name: value for name, value in (("clusters", wanted.clusters), ("export", names)) if value is not None}


def _executor(folder: Path, name: str, clusters: str | None, command: str) -> "SlurmExecutor":
    """Make submitit's executor send our command, always as an array, and pickle nothing.

    sbatch gets a timeout, every option on its command line, and none from the shell.
    """
    from submitit.core.core import Job
    from submitit.core.utils import DelayedSubmission
    from submitit.slurm.slurm import SlurmExecutor, SlurmJob

    class ArrayExecutor(SlurmExecutor):
        @property
        def _submitit_command_str(self) -> str:
            return command

        def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Job[object]]:
            count = self.parameters["map_count"] = len(delayed_submissions)
            first = self._submit_command(self._submitit_command_str)
            return [SlurmJob(folder=self.folder, job_id=f"{first.job_id}_{index}", tasks=[0]) for index in range(count)]

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            flags = _flags(submission_file_path.read_text())
            unset = [f"--unset={name}" for name in options_in(os.environ)]
            limit = ["timeout", f"--kill-after={KILL_AFTER_S}", str(SBATCH_S)]
            return ["env", *unset, *limit, "sbatch", "--parsable", *flags, str(submission_file_path)]

        @staticmethod
        def _get_job_id_from_submission_command(string: bytes | str) -> str:
            said = string if isinstance(string, str) else string.decode(errors="replace")
            return confirmed_id(said, name, clusters)

    return ArrayExecutor(folder)


def _flags(script: str) -> list[str]:
    """The options in a job script, to be given on the command line as well, where nothing overrides them."""
    return [word for line in re.findall(r"^#SBATCH (.+)$", script, re.MULTILINE) for word in shlex.split(line)]


def _job_command(bundle: Path, container: ContainerRecord | None) -> str:
    """The shell command of a job, which is deaf to SIGUSR2 until Python can take notice of it.

    Killed by it in its first second, a job has failed in Slurm's eyes; deaf to it, it is requeued after the grace.
    """
    deaf = ["sh", "-c", 'trap "" USR2; exec "$@"', "sh"]
    return shlex.join([*deaf, *launched(container, "slurm.task", str(bundle))])


def _signal_delay_s(time_limit_min: int | None) -> int:
    """A very short job is told as late as its length allows."""
    return SIGNAL_S if time_limit_min is None else min(SIGNAL_S, time_limit_min * 60 // 4)


def unusable_folder(folder: Path) -> str | None:
    """Say why Slurm could not write its output under a folder, None if it can: it expands % and a script has lines."""
    if "%" in str(folder):
        return f"{folder}: Slurm gives '%' in a path a meaning of its own; choose another --output"
    if any(not character.isprintable() for character in str(folder)):
        return f"{str(folder)!r}: a folder for Slurm's output must not hold line breaks; choose another --output"
    return None


@functools.cache
def on_login_node() -> bool:
    """Tell whether jobs can be submitted from here: Slurm's commands are there, and know of a cluster.

    A cluster that does not answer now is one all the same.
    """
    if shutil.which("sbatch") is None:
        return False
    try:
        call(["scontrol", "ping"])
    except NotConfigured:
        return False
    except SlurmError:
        return True
    return True

"""Slurm's evidence in the study's words: why a job ended, and why it waits. Pure.

The evidence is what Slurm told of the task and the tail of its log; what the run's own files say is the caller's to
weigh first. The measurements quoted here were made on Slurm 22.05.8; tests/slurm/test_causes.py holds the rows.
"""

import re
import signal
from typing import NamedTuple

from slurm.jobs import TaskRow
from slurm.preamble import read_failure
from trainer.records.attempt import Cause, ExitCode
from trainer.records.gpu_errors import BROKEN, FULL


class Ending(NamedTuple):
    """How a job ended. cause: None when it ended well, was cancelled, or nobody can say."""

    cause: Cause | None
    message: str | None = None
    cancelled: bool = False


TOO_MUCH_MEMORY = re.compile(
    r"exceeded (?:job |step )?memory limit|oom[-_]kill|error: \S+: tasks? [\d,-]+: out of memory", re.I
)
CANCELLED_AT = re.compile(
    r"error: \*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO (TIME LIMIT|PREEMPTION|NODE FAILURE))?"
)
DUE_TO = {
    "TIME LIMIT": (Cause.TIMEOUT, "reached its time limit"),
    "PREEMPTION": (Cause.PREEMPTED, "was preempted by a job of higher priority"),
    "NODE FAILURE": (Cause.NODE_FAIL, "its node failed"),
}
STATES = {
    "TIMEOUT": DUE_TO["TIME LIMIT"],
    "DEADLINE": (Cause.TIMEOUT, "could not end before its deadline"),
    "PREEMPTED": DUE_TO["PREEMPTION"],
    "NODE_FAIL": DUE_TO["NODE FAILURE"],
    "BOOT_FAIL": (Cause.NODE_FAIL, "its node failed to boot"),
    "OUT_OF_MEMORY": (Cause.HOST_OOM, "used more memory than it had asked for"),
    "LAUNCH_FAILED": (Cause.LAUNCH_FAILED, "Slurm could not start it on its node"),
    "RECONFIG_FAIL": (Cause.NODE_FAIL, "its node could not be prepared"),
}
NODE_FAILED = re.compile(r"^srun: error: Node failure on ", re.M)  # all that Slurm 26.05 leaves in the log
PROLOG = re.compile(r"error running slurm prolog", re.I)
BEFORE_PYTHON = re.compile(
    r"error: execve\(\)"
    r"|error: Unable to create .*output|error: could not open std"
    r"|(?:slurm_script|\.sh|bash|environment|init)\S*: (?:line )?\d+: "
    r".*(?:not found|No such file or directory|Permission denied)$"
    r"|(?:bash|sh|env|conda|srun|module): .*(?:not found|No such file or directory|Permission denied)$"
    r"|^(?:Conda\w*Error|EnvironmentNameNotFound|CommandNotFoundError)\b"
    r"|Lmod has detected the following error|Unable to locate a modulefile|ModuleCmd_Load"
    r"|^FATAL: |error: pyxis: |srun: unrecognized option"
    r"|error while loading shared libraries|: can't open file '",
)
NO_MODULE = re.compile(r"No module named ")
# Slurm 26.05's slurmstepd begins a line with the time.
SLURM_TALKS = re.compile(r"^((srun|slurmstepd\S*|slurmd\S*): |\[\d{4}-\d\d-\d\dT[\d:.]+\] (error|fatal): )")
NO_OUTPUT_FOLDER = 53  # what Slurm gives as a signal when it cannot open the log, among others
LARGEST_SIGNAL = 64


def ending(row: TaskRow, log_tail: str) -> Ending:
    """Tell why a task ended, from its terminal row and the last lines of its log ("" where there is none)."""
    if row.state == "COMPLETED":
        return Ending(None)
    if row.state in STATES:
        cause, words = STATES[row.state]
        return Ending(cause, f"{words} (Slurm: {row.state})")
    if row.state == "CANCELLED":
        return _cancelled(row, log_tail)
    if row.state == "FAILED":
        return _failed(row, log_tail)
    return Ending(None, f"ended (Slurm: {row.state})")


def from_log(log_tail: str) -> Ending | None:
    """Tell why a task ended from the last lines of its log alone; None where Slurm left no word there."""
    if TOO_MUCH_MEMORY.search(log_tail):
        evidence = _line_with(TOO_MUCH_MEMORY, log_tail)
        return Ending(Cause.HOST_OOM, f"used more memory than it had asked for ({evidence})")
    if PROLOG.search(log_tail):
        return Ending(Cause.LAUNCH_FAILED, f"its node was not ready ({_line_with(PROLOG, log_tail)})")
    kind, due_to = _last_cancellation(log_tail)
    if due_to in DUE_TO:
        cause, words = DUE_TO[due_to]
        return Ending(cause, f"{words} (its log: DUE TO {due_to})")
    if kind == "JOB":  # a lone STEP is no proof: the grace time of a preemption ends steps alike
        return Ending(None, "was cancelled, its log says", cancelled=True)
    if NODE_FAILED.search(log_tail):
        return Ending(Cause.NODE_FAIL, f"its node failed ({_line_with(NODE_FAILED, log_tail)})")
    return None


def _cancelled(row: TaskRow, log_tail: str) -> Ending:
    """The wish of somebody, unless the log knows better. What never started cannot have left words in a log."""
    if row.node is not None:
        told = from_log(log_tail)
        if told is not None and not told.cancelled:
            return told
    whom = f"by {row.cancelled_by}" if row.cancelled_by else "; Slurm does not say by whom"
    return Ending(None, f"was cancelled {whom}".replace(" ;", ";"), cancelled=True)


def _failed(row: TaskRow, log_tail: str) -> Ending:
    code, number = _exit(row.exit_code)
    said = f"Slurm: {row.state} {row.exit_code or row.reason or ''}".rstrip()
    memory = _memory(row, log_tail)
    if memory:
        return Ending(Cause.HOST_OOM, f"used more memory than it had asked for ({said}; {memory})")
    if number == NO_OUTPUT_FOLDER:
        words = "could not start, most likely because its log could not be created"
        return Ending(Cause.LAUNCH_FAILED, f"{words} ({said}, no log at all)")
    if row.node is None:  # Slurm keeps a failed row of what it refused to sbatch
        reason = f", {row.reason}" if row.reason and row.reason not in said else ""
        return Ending(Cause.LAUNCH_FAILED, f"Slurm refused it: no node has what it asks for ({said}{reason})")
    if PROLOG.search(log_tail):
        return Ending(Cause.LAUNCH_FAILED, f"its node was not ready ({_line_with(PROLOG, log_tail)})")
    killer = _killer(row, code, number)
    in_setup = None if killer else _in_setup(log_tail, said)
    if in_setup:
        return Ending(Cause.LAUNCH_FAILED, in_setup)
    if code == ExitCode.INTERRUPTED:
        return Ending(None, f"stopped in good order, to go on from its checkpoint another time ({said})")
    if code == ExitCode.STOOD_BACK:
        return Ending(None, f"stood back: another process had its runs ({said})")
    if killer:
        return _killed(killer, said, log_tail)
    for gpu, cause in ((FULL, Cause.CUDA_OOM), (BROKEN, Cause.GPU_FAULT)):
        if gpu.search(log_tail):
            return Ending(cause, _line_with(gpu, log_tail))
    return _exited(code, said, log_tail)


def _in_setup(log_tail: str, said: str) -> str | None:
    """Say which line before the task ended the job, and with what words; None if the task began."""
    found = read_failure(log_tail)
    if found is None:
        return None
    how = said if found.code is None else f"exit code {found.code}"
    return f"failed before training began, at '{found.line}' ({how})" + (f": {found.output}" if found.output else "")


def _memory(row: TaskRow, log_tail: str) -> str | None:
    """Find the evidence that memory ran out: under srun only a step's state, or the derived code, shows it."""
    step = next((step for step in row.steps if step.state == "OUT_OF_MEMORY" or step.exit_code == "0:125"), None)
    if step is not None:
        return f"step {step.name}: {step.state} {step.exit_code}"
    if "0:125" in (row.exit_code, row.derived_exit_code):
        return "signal 125 is Slurm's for memory"
    if row.reason == "OutOfMemory":
        return f"reason {row.reason}"
    return _line_with(TOO_MUCH_MEMORY, log_tail) if TOO_MUCH_MEMORY.search(log_tail) else None


def _killer(row: TaskRow, code: int, number: int) -> int | None:
    """Find the signal that ended a job.

    sacct takes 128 off exit codes above it: a shell's 137 and an exit(9) both read 9:0, which only the derived code
    and the steps tell apart. squeue's code is whole. Where nothing decides, SIGKILL and SIGTERM are the likelier.
    """
    if number:
        return number
    if 128 < code <= 128 + LARGEST_SIGNAL:
        return code - 128
    derived = _exit(row.derived_exit_code)
    steps = [_exit(step.exit_code) for step in row.steps if step.name not in ("batch", "extern")]
    if derived[1] == code > 0 or (0, code) in steps:
        return code
    raised = re.match(r"RaisedSignal:(\d+)", row.reason or "")
    if raised:
        return int(raised[1])
    undecided = derived[0] == 0 and not steps
    return code if undecided and code in (signal.SIGKILL, signal.SIGTERM) else None


def _killed(number: int, said: str, log_tail: str) -> Ending:
    _, due_to = _last_cancellation(log_tail)
    if due_to in DUE_TO:
        cause, words = DUE_TO[due_to]
        return Ending(cause, f"{words} ({said}; its log: DUE TO {due_to})")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    # Measured: a job that dies of the SIGTERM that opens a preemption's grace time is FAILED 15:0, never PREEMPTED.
    hint = "; Slurm sends it to a job it is about to preempt, among other reasons" if number == signal.SIGTERM else ""
    return Ending(Cause.KILLED, f"was killed by {name} ({said}){hint}")


def _exited(code: int, said: str, log_tail: str) -> Ending:
    last = _last_words(log_tail)
    early = _line_with(BEFORE_PYTHON, log_tail)
    python_began = "Traceback (most recent call last)" in log_tail
    if early and not python_began:
        return Ending(Cause.LAUNCH_FAILED, f"failed before training began: {early}")
    if last and NO_MODULE.search(last):
        return Ending(Cause.LAUNCH_FAILED, f"failed before training began: {last}")
    if code in (126, 127) and not python_began:  # sacct shows an exit code of 254 or 255 so as well
        words = "a command was not found" if code == 127 else "a command could not be executed"
        return Ending(Cause.LAUNCH_FAILED, f"{words} ({said})")
    if last:
        return Ending(Cause.EXCEPTION, last)
    return Ending(Cause.EXCEPTION, f"failed and its log does not say why ({said})")


def _exit(text: str | None) -> tuple[int, int]:
    """Split Slurm's "code:signal"."""
    code, _, number = (text or "").partition(":")
    return (int(code), int(number)) if code.isdecimal() and number.isdecimal() else (0, 0)


def _lines(log_tail: str) -> list[str]:
    return [line.strip() for line in re.split(r"[\r\n]+", log_tail) if line.strip()]


def _line_with(pattern: re.Pattern[str], log_tail: str) -> str:
    """The last line in which a pattern occurs, "" if none."""
    return next((_short(line) for line in reversed(_lines(log_tail)) if pattern.search(line)), "")


def _last_words(log_tail: str) -> str:
    """The last line that is the program's own, not Slurm's about it."""
    return next((_short(line) for line in reversed(_lines(log_tail)) if not SLURM_TALKS.match(line)), "")


def _short(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:297]}..."


def _last_cancellation(log_tail: str) -> tuple[str | None, str | None]:
    """The kind (JOB, STEP) and DUE TO of the newest cancellation in a log that restarts append to.

    The job's word counts before a step's: in a preemption's grace time steps end first, without a reason.
    """
    found = CANCELLED_AT.findall(log_tail)
    jobs = [entry for entry in found if entry[0] == "JOB"]
    kind, due_to = (jobs or found or [(None, None)])[-1]
    return kind, due_to or None


# Why a job waits. The first pattern that matches Slurm's reason, letters only (22.05's squeue writes some with spaces,
# sacct with underscores), gives the sentence; {job} is the task's id.
_FOREVER = "it would wait for ever: cancel it and submit again with {fix}"
WAITS: tuple[tuple[str, str], ...] = (
    ("jobhelduser", "held by its user: waits until 'scontrol release {job}'"),
    ("jobheldadmin", "held by an administrator, who alone can release it: ask them, or 'scancel {job}'"),
    (
        "launchfailedrequeuedheld",
        "held because its launch failed on a node: 'scontrol release {job}' tries again, else it waits for ever",
    ),
    ("jobrequeuedinheldstate|requeuehold|specialexit", "requeued and held: waits until 'scontrol release {job}'"),
    ("jobholdmaxrequeue", "requeued too often and held: waits until 'scontrol release {job}'"),
    ("dependencyneversatisfied", "depends on a job that failed, " + _FOREVER.format(fix="no such dependency")),
    (
        "partitionnodelimit",
        "asks for nodes its partition does not have: unless they are only down, "
        + _FOREVER.format(fix="another partition"),
    ),
    ("partitiontimelimit", "asks for more time than its partition allows, " + _FOREVER.format(fix="a shorter limit")),
    ("partitionconfig|badconstraints", "asks for what no node of its partition has, " + _FOREVER.format(fix="less")),
    (
        "(account|qos)notallowed|invalid(account|qos)",
        "its account or QOS may not use this partition, " + _FOREVER.format(fix="another, or ask the administrators"),
    ),
    ("reservationdeleted", "its reservation was deleted, " + _FOREVER.format(fix="no reservation")),
    (
        "(assoc|qos)(max|min).*(perjob|pernode|notsatisfied|walldurationperjob)|qosmin|maxmemperlimit",
        "asks for more (or less) than one job may have here, " + _FOREVER.format(fix="other resources"),
    ),
    (
        "(assoc|qos)grp.*minutes|(association|qos)timelimit|qosusagethreshold",
        "the time granted to its account is used up: waits until it is renewed, see 'sshare' or ask the administrators",
    ),
    (
        "(assoc|qos)grp|(assoc|qos)max|(association|qos)(job|resource)limit|max(submit)?(jobs|memory)peraccount",
        "a limit of its account or QOS is reached: waits until others' jobs end, for ever if it alone is over it",
    ),
    (
        "reqnodenotavail|nodesrequiredforjobaredown|nodedown|frontenddown",
        "the nodes it could use are down, drained or reserved: waits until they return, see 'sinfo -R'",
    ),
    ("partition(down|inactive)", "its partition is closed: waits until an administrator opens it, see 'sinfo'"),
    ("jobarraytasklimit", "waits for its turn: the array's own limit on jobs at once is reached"),
    ("resources", "waits for free nodes"),
    ("priority", "waits for its turn behind jobs of higher priority"),
    ("begintime", "waits for its start time; a requeued job waits a little before it starts again"),
    ("dependency", "waits for the job it depends on"),
    ("licenses", "waits for a licence"),
    ("reservation", "waits for its reservation to begin"),
    ("cleaning|prolog", "waits while its node is made ready"),
)
_WAITS = tuple((re.compile(pattern), words) for pattern, words in WAITS)
_WAITING_STATES = {
    "SUSPENDED": "suspended: 'scontrol resume {job}' lets it go on",
    "STOPPED": "stopped by a signal: 'scancel -s CONT {job}' lets it go on",
    "CONFIGURING": "its node is being made ready",
    "POWER_UP_NODE": "its node is being switched on",
    "REQUEUED": "requeued, will start again",
    "REQUEUE_FED": "requeued, will start again",
    "REQUEUE_HOLD": "requeued and held: waits until 'scontrol release {job}'",
    "RESV_DEL_HOLD": "held because its reservation was deleted: 'scontrol release {job}' lets it go on",
    "SPECIAL_EXIT": "requeued and held in a special state: waits until 'scontrol release {job}'",
}


def waiting(row: TaskRow, clusters: str | None = None) -> str:
    """Say why a task waits, whether that can end by itself, and if not what to do; clusters: the one it was sent to."""
    words = _waiting(row)
    return words if clusters is None else re.sub(r"'(scontrol|scancel|sinfo) ", rf"'\1 -M {clusters} ", words)


def _waiting(row: TaskRow) -> str:
    if row.state in _WAITING_STATES:
        return f"{_WAITING_STATES[row.state].format(job=row.job)} (Slurm: {row.state})"
    reason = row.reason or ""
    letters = re.sub("[^a-z]", "", reason.lower())
    for pattern, words in _WAITS:
        if pattern.match(letters):
            return f"{words.format(job=row.job)} (Slurm: {reason})"
    return f"waits (Slurm: {reason})" if reason else "waits"

"""Why a job ended and why it waits, from what Slurm 22.05.8 (Debian 12) really printed for each case on four nodes.

What newer Slurms print otherwise was recorded with 24.11.5 and 26.05.5, and says so.

sacct rows are `sacct -n -P --format=JobID,State,ExitCode,DerivedExitCode,NodeList,Submit,Start,End,Reason,JobName`, the
logs what the job wrote. Not seen here, but written from Slurm's manual and the measurements of others: "cgroups",
DEADLINE, BOOT_FAIL.
"""

from datetime import datetime, timezone

import pytest

from slurm.answers import parse_sacct, parse_squeue
from slurm.causes import ending, from_log, waiting
from slurm.jobs import TaskRow
from trainer.records.attempt import Cause

SEEN = datetime(2026, 11, 23, tzinfo=timezone.utc)
TIMES = "cpu-1|1795392336|1795392336|1795392337|None"

SRUN_KILLED = "srun: error: cpu-1: task 0: Killed\nsrun: Force Terminated StepId=4.0\n"
OVER_MEMORY = """\
slurmstepd-cpu-1: error: StepId=15.0 exceeded memory limit (427675648 > 104857600), being killed
slurmstepd-cpu-1: error: Exceeded job memory limit
srun: Job step aborted: Waiting up to 5 seconds for job step to finish.
slurmstepd-cpu-1: error: Exceeded job memory limit
srun: error: cpu-1: task 0: Killed
"""
OVER_MEMORY_BATCH = """\
slurmstepd-cpu-1: error: StepId=16.batch exceeded memory limit (429191168 > 104857600), being killed
slurmstepd-cpu-1: error: *** JOB 16 ON cpu-1 CANCELLED AT 2026-11-23T00:05:39 ***
slurmstepd-cpu-1: error: Exceeded job memory limit
"""
TIME_LIMIT = """\
slurmstepd-cpu-1: error: *** JOB 13 ON cpu-1 CANCELLED AT 2026-11-23T00:06:57 DUE TO TIME LIMIT ***
srun: Job step aborted: Waiting up to 5 seconds for job step to finish.
slurmstepd-cpu-1: error: *** STEP 13.0 ON cpu-1 CANCELLED AT 2026-11-23T00:06:57 DUE TO TIME LIMIT ***
srun: got SIGCONT
srun: error: cpu-1: task 0: Terminated
"""
PREEMPTED = """\
slurmstepd-p100-1: error: *** STEP 55.0 ON p100-1 CANCELLED AT 2026-11-23T00:11:20 ***
slurmstepd-p100-1: error: *** JOB 55 ON p100-1 CANCELLED AT 2026-11-23T00:11:27 DUE TO PREEMPTION ***
srun: Job step aborted: Waiting up to 5 seconds for job step to finish.
srun: got SIGCONT
srun: forcing job termination
"""
PREEMPTED_IN_GRACE_TIME = """\
slurmstepd-p100-1: error: *** STEP 51.0 ON p100-1 CANCELLED AT 2026-11-23T00:09:15 ***
srun: error: p100-1: task 0: Terminated
srun: Force Terminated StepId=51.0
"""
NODE_FAILED = """\
srun: error: Node failure on v100-1
slurmstepd-v100-1: error: *** STEP 26.0 ON v100-1 CANCELLED AT 2026-11-23T00:09:14 DUE TO NODE FAILURE, SEE SLURMCTLD \
LOG FOR DETAILS ***
slurmstepd-v100-1: error: *** JOB 26 ON v100-1 CANCELLED AT 2026-11-23T00:09:14 DUE TO NODE FAILURE, SEE SLURMCTLD \
LOG FOR DETAILS ***
"""
CANCELLED = """\
srun: Job step aborted: Waiting up to 5 seconds for job step to finish.
slurmstepd-cpu-1: error: *** JOB 17 ON cpu-1 CANCELLED AT 2026-11-23T00:06:30 ***
srun: forcing job termination
slurmstepd-cpu-1: error: *** STEP 17.0 ON cpu-1 CANCELLED AT 2026-11-23T00:06:30 ***
srun: error: cpu-1: task 0: Terminated
"""
NEWER_OVER_MEMORY = """\
[2026-11-27T02:29:59.122] error: StepId=9.0 exceeded memory limit (409518080 > 104857600), being killed
srun: Job step aborted: Waiting up to 5 seconds for job step to finish.
[2026-11-27T02:29:59.128] error: Exceeded job memory limit
[2026-11-27T02:29:59.130] error: *** STEP 9.0 ON cpu-1 CANCELLED AT 2026-11-27T02:29:59 DUE to SIGNAL Killed ***
srun: error: cpu-1: task 0: Killed
"""
NEWER_NO_PYTHON = """\
[2026-11-27T02:29:57.045] error: execve(): /no/such/python: No such file or directory
srun: error: cpu-1: task 0: Exited with exit code 2
"""
NEWER_PREEMPTED = """\
[2026-11-27T02:30:00.746] error: *** STEP 15.0 ON p100-1 CANCELLED AT 2026-11-27T02:30:00 DUE to SIGNAL Terminated ***
srun: error: p100-1: task 0: Terminated
srun: Force Terminated StepId=15.0
"""
NEWER_TIME_LIMIT = """\
[2026-11-27T02:59:19.008] error: *** JOB 1 ON cpu-1 CANCELLED AT 2026-11-27T02:59:19 DUE TO TIME LIMIT ***
srun: got SIGCONT
srun: error: cpu-1: task 0: Terminated
"""
NEWER_CANCELLED = """\
[2026-11-27T02:58:55.612] error: *** STEP 2.0 ON cpu-1 CANCELLED AT 2026-11-27T02:58:55 DUE to SIGNAL Terminated ***
[2026-11-27T02:58:55.613] error: *** JOB 2 ON cpu-1 CANCELLED AT 2026-11-27T02:58:55 DUE to SIGNAL Terminated ***
srun: error: cpu-1: task 0: Terminated
"""
NEWER_NODE_FAILED = "srun: error: Node failure on v100-1\n"
OOM_KILL = (
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been killed by "
    "the cgroup out-of-memory handler.\nsrun: error: node7: task 0: Out Of Memory\n"
)
PROLOG = "Error running slurm prolog: 1\n"
CUDA = """\
Traceback (most recent call last):
  File "/home/ada/sweep/trainer/loop.py", line 80, in train
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB
srun: error: v100-1: task 0: Exited with exit code 1
"""
RAISED = """\
Traceback (most recent call last):
  File "/home/ada/sweep/trainer/loop.py", line 80, in train
FileNotFoundError: [Errno 2] No such file or directory: 'cifar10.npy'
srun: error: v100-1: task 0: Exited with exit code 1
"""
NO_PYTHON = (
    "slurmstepd-cpu-1: error: execve(): /no/such/python: No such file or directory\n"
    "srun: error: cpu-1: task 0: Exited with exit code 2\n"
)
NO_TRAINER = "/usr/bin/python3: No module named trainer\nsrun: error: cpu-1: task 0: Exited with exit code 1\n"
NO_TORCH = "Traceback (most recent call last):\n  File \"t.py\", line 1\nModuleNotFoundError: No module named 'torch'\n"
NOT_FOUND = "/var/spool/slurmd/job00010/slurm_script: 4: nosuchpython: not found\n"
NOT_FOUND_BASH = "/var/spool/slurmd/job00010/slurm_script: line 4: conda: command not found\n"
NOT_EXECUTABLE = "/var/spool/slurmd/job00011/slurm_script: 4: /etc/passwd: Permission denied\n"
NO_CONDA = "\nEnvironmentNameNotFound: Could not find conda environment: thesis\n"

SACCT = {
    "exit 3 under srun": (
        f"1_1|FAILED|3:0|3:0|{TIMES}|t\n1_1.batch|FAILED|3:0||{TIMES}|batch\n1_1.0|FAILED|3:0||{TIMES}|sh",
        RAISED,
        (Cause.EXCEPTION, "FileNotFoundError: [Errno 2] No such file"),
    ),
    "exit 3 of the batch script, no log": (
        f"2_0|FAILED|3:0|0:0|{TIMES}|t\n2_0.batch|FAILED|3:0||{TIMES}|batch",
        "",
        (Cause.EXCEPTION, "its log does not say why (Slurm: FAILED 3:0)"),
    ),
    "exit 9 by itself": (
        f"46_0|FAILED|9:0|9:0|{TIMES}|t\n46_0.batch|FAILED|9:0||{TIMES}|batch\n46_0.0|FAILED|9:0||{TIMES}|sh",
        RAISED,
        (Cause.EXCEPTION, "FileNotFoundError"),
    ),
    "completed": (f"3_0|COMPLETED|0:0|0:0|{TIMES}|t\n3_0.0|COMPLETED|0:0||{TIMES}|sleep", CANCELLED, (None, None)),
    "SIGKILL to a task under srun": (
        f"4_0|FAILED|9:0|0:9|{TIMES}|t\n4_0.batch|FAILED|9:0||{TIMES}|batch\n4_0.0|CANCELLED|0:9||{TIMES}|sh",
        SRUN_KILLED,
        (Cause.KILLED, "killed by SIGKILL (Slurm: FAILED 9:0)"),
    ),
    "SIGSEGV under srun": (
        f"5_0|FAILED|11:0|0:11|{TIMES}|t\n5_0.batch|FAILED|11:0||{TIMES}|batch\n5_0.0|CANCELLED|0:11||{TIMES}|sh",
        "srun: error: cpu-1: task 0: Segmentation fault\n",
        (Cause.KILLED, "killed by SIGSEGV"),
    ),
    "SIGKILL to the batch script": (
        f"6_0|FAILED|0:9|0:0|{TIMES}|t\n6_0.batch|CANCELLED|0:9||{TIMES}|batch",
        "",
        (Cause.KILLED, "killed by SIGKILL (Slurm: FAILED 0:9)"),
    ),
    "a child of the batch script killed: its 137, less 128": (
        f"45_0|FAILED|9:0|0:0|{TIMES}|t\n45_0.batch|FAILED|9:0||{TIMES}|batch",
        "",
        (Cause.KILLED, "killed by SIGKILL"),
    ),
    "SIGUSR2": (
        f"49_0|FAILED|0:12|0:0|{TIMES}|t\n49_0.batch|CANCELLED|0:12||{TIMES}|batch\n49_0.0|COMPLETED|0:0||{TIMES}|sleep",
        "",
        (Cause.KILLED, "killed by SIGUSR2"),
    ),
    "preempted, dead of the SIGTERM of the grace time": (
        f"51_0|FAILED|15:0|0:15|{TIMES}|t\n51_0.batch|FAILED|15:0||{TIMES}|batch\n51_0.0|CANCELLED|0:15||{TIMES}|sleep",
        PREEMPTED_IN_GRACE_TIME,
        (Cause.KILLED, "SIGTERM (Slurm: FAILED 15:0); Slurm sends it to a job it is about to preempt"),
    ),
    "output folder missing": (
        f"8_0|FAILED|0:53|0:0|{TIMES}|t\n8_0.batch|CANCELLED|0:53||{TIMES}|batch",
        "",
        (Cause.LAUNCH_FAILED, "its log could not be created (Slurm: FAILED 0:53, no log at all)"),
    ),
    "rejected at submit": (
        "62_0|FAILED|1:0|0:0|None assigned|1795393435|1795393435|1795393435|None|t",
        "",
        (Cause.LAUNCH_FAILED, "Slurm refused it"),
    ),
    "no such program under srun": (
        f"9_0|FAILED|2:0|0:0|{TIMES}|t\n9_0.batch|FAILED|2:0||{TIMES}|batch\n9_0.0|FAILED|2:0||{TIMES}|python",
        NO_PYTHON,
        (Cause.LAUNCH_FAILED, "before training began: slurmstepd-cpu-1: error: execve(): /no/such/python"),
    ),
    "command not found": (
        f"10_0|FAILED|127:0|0:0|{TIMES}|t\n10_0.batch|FAILED|127:0||{TIMES}|batch",
        NOT_FOUND,
        (Cause.LAUNCH_FAILED, "nosuchpython: not found"),
    ),
    "command not found, without its log": (
        f"10_0|FAILED|127:0|0:0|{TIMES}|t",
        "",
        (Cause.LAUNCH_FAILED, "a command was not found (Slurm: FAILED 127:0)"),
    ),
    "127 from a program that raised": (
        f"47_0|FAILED|127:0|127:0|{TIMES}|t\n47_0.0|FAILED|127:0||{TIMES}|sh",
        RAISED,
        (Cause.EXCEPTION, "FileNotFoundError"),
    ),
    "not executable": (
        f"11_0|FAILED|126:0|0:0|{TIMES}|t\n11_0.batch|FAILED|126:0||{TIMES}|batch",
        NOT_EXECUTABLE,
        (Cause.LAUNCH_FAILED, "/etc/passwd: Permission denied"),
    ),
    "setup failed in bash": (f"11_0|FAILED|1:0|0:0|{TIMES}|t", NOT_FOUND_BASH, (Cause.LAUNCH_FAILED, "conda: command")),
    "no conda environment": (f"11_0|FAILED|1:0|0:0|{TIMES}|t", NO_CONDA, (Cause.LAUNCH_FAILED, "thesis")),
    "no module trainer": (
        f"12_0|FAILED|1:0|1:0|{TIMES}|t\n12_0.0|FAILED|1:0||{TIMES}|python3",
        NO_TRAINER,
        (Cause.LAUNCH_FAILED, "No module named trainer"),
    ),
    "no module torch": (f"12_0|FAILED|1:0|1:0|{TIMES}|t", NO_TORCH, (Cause.LAUNCH_FAILED, "No module named 'torch'")),
    "prolog failed, not requeued": (
        "27_0|CANCELLED by 0|0:0|0:0|p100-1|1795392336|1795392336|1795392336|None|t\n"
        "27_0.batch|CANCELLED|||p100-1|1795392336|1795392336|1795392336||batch",
        PROLOG,
        (Cause.LAUNCH_FAILED, "its node was not ready (Error running slurm prolog: 1)"),
    ),
    "time limit": (
        f"13_0|TIMEOUT|0:0|0:0|{TIMES}|t\n13_0.batch|FAILED|15:0||{TIMES}|batch\n13_0.0|CANCELLED|0:15||{TIMES}|sleep",
        TIME_LIMIT,
        (Cause.TIMEOUT, "time limit (Slurm: TIMEOUT)"),
    ),
    "deadline": (f"13_0|DEADLINE|0:0|0:0|{TIMES}|t", "", (Cause.TIMEOUT, "Slurm: DEADLINE")),
    "memory, OverMemoryKill, under srun": (
        f"15_0|FAILED|9:0|0:9|{TIMES}|t\n15_0.batch|FAILED|9:0||{TIMES}|batch\n"
        f"15_0.0|CANCELLED by 0|0:9||{TIMES}|python3",
        OVER_MEMORY,
        (Cause.HOST_OOM, "Exceeded job memory limit"),
    ),
    "memory, OverMemoryKill, batch script": (
        f"16_0|FAILED|0:9|0:0|{TIMES}|t\n16_0.batch|CANCELLED by 0|0:9||{TIMES}|batch",
        OVER_MEMORY_BATCH,
        (Cause.HOST_OOM, "Slurm: FAILED 0:9"),
    ),
    "memory, cgroups, batch script": (
        f"16_0|OUT_OF_MEMORY|0:125|0:0|{TIMES}|t\n16_0.batch|OUT_OF_MEMORY|0:125||{TIMES}|batch",
        "",
        (Cause.HOST_OOM, "Slurm: OUT_OF_MEMORY"),
    ),
    "memory, cgroups, under srun: derived code": (
        f"16_0|FAILED|1:0|0:125|{TIMES}|t",
        "",
        (Cause.HOST_OOM, "125"),
    ),
    "memory, cgroups, under srun: step": (
        f"16_0|FAILED|1:0|0:0|{TIMES}|t\n16_0.batch|FAILED|1:0||{TIMES}|batch\n16_0.0|OUT_OF_MEMORY|0:125||{TIMES}|python3",
        "",
        (Cause.HOST_OOM, "step 0: OUT_OF_MEMORY 0:125"),
    ),
    "memory, cgroups, only the log": (f"16_0|FAILED|1:0|1:0|{TIMES}|t", OOM_KILL, (Cause.HOST_OOM, "Out Of Memory")),
    "CUDA out of memory": (f"16_0|FAILED|1:0|1:0|{TIMES}|t", CUDA, (Cause.CUDA_OOM, "CUDA out of memory. Tried")),
    "preempted": (
        "55_0|PREEMPTED|0:0|0:0|p100-1|1795392677|1795392678|1795392687|None|t\n"
        "55_0.batch|CANCELLED|0:15||p100-1|1795392678|1795392678|1795392687||batch\n"
        "55_0.0|CANCELLED|0:9||p100-1|1795392678|1795392678|1795392694||sh",
        PREEMPTED,
        (Cause.PREEMPTED, "preempted"),
    ),
    "node died": (
        "26_0|NODE_FAIL|0:0|0:0|v100-1|1795392336|1795392336|1795392554|None|t\n"
        "26_0.0|CANCELLED|||v100-1|1795392336|1795392336|1795392554||sleep",
        NODE_FAILED,
        (Cause.NODE_FAIL, "NODE_FAIL"),
    ),
    "node did not boot": (f"26_0|BOOT_FAIL|0:0|0:0|{TIMES}|t", "", (Cause.NODE_FAIL, "BOOT_FAIL")),
    "the trainer stopped in good order": (f"1_0|FAILED|75:0|75:0|{TIMES}|t", "", (None, "checkpoint")),
    "the trainer stood back": (f"1_0|FAILED|69:0|69:0|{TIMES}|t", "", (None, "another process")),
    "26.05, exit 137": (f"3_0|FAILED|137:0|0:0|{TIMES}|t", "", (Cause.KILLED, "SIGKILL (Slurm: FAILED 137:0)")),
    "26.05, exit 255": (f"4_0|FAILED|255:0|0:0|{TIMES}|t", RAISED, (Cause.EXCEPTION, "FileNotFound")),
    "26.05, memory": (f"9_0|FAILED|137:0|0:9|{TIMES}|t", NEWER_OVER_MEMORY, (Cause.HOST_OOM, "memory limit")),
    "26.05, no Python": (f"8_0|FAILED|2:0|2:0|{TIMES}|t", NEWER_NO_PYTHON, (Cause.LAUNCH_FAILED, "execve()")),
    "26.05, an exception, then Slurm's words": (
        f"1_0|FAILED|1:0|1:0|{TIMES}|t",
        RAISED + NEWER_PREEMPTED,
        (Cause.EXCEPTION, "FileNotFoundError"),
    ),
    "24.11, batch script killed": (
        f"6_0|FAILED|0:9|0:0|{TIMES}|t\n6_0.batch|CANCELLED|0:9||cpu-1|1|2|3||batch",
        "",
        (Cause.KILLED, "SIGKILL"),
    ),
    "a state unheard of": (f"1_0|FROZEN|0:0|0:0|{TIMES}|t", "", (None, "Slurm: FROZEN")),
}


@pytest.mark.parametrize("case", SACCT)
def test_accounting_tells_the_cause(case: str) -> None:
    """Every row Slurm leaves behind comes to the cause it had, in a sentence that holds Slurm's own words."""
    text, log, (cause, words) = SACCT[case]
    told = ending(one_of_sacct(text), log)
    assert told.cause is cause
    assert not told.cancelled
    assert told.message is None if words is None else words in (told.message or "")
    assert "\n" not in (told.message or "")


SQUEUE = {
    "exit 3": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|768|768|t", "", (Cause.EXCEPTION, "FAILED 3:0")),
    "killed": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|35072|9|t", "", (Cause.KILLED, "SIGKILL (Slurm: FAILED 137:0)")),
    "exit 137": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|35072|0|t", "", (Cause.KILLED, "SIGKILL")),
    "exit 9": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|2304|2304|t", RAISED, (Cause.EXCEPTION, "FileNotFound")),
    "exit 255, which sacct shows as 127": (
        "FAILED|NonZeroExitCode|cpu-1|0|1|2|3|65280|0|t",
        "",
        (Cause.EXCEPTION, "FAILED 255:0"),
    ),
    "command not found": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|32512|0|t", "", (Cause.LAUNCH_FAILED, "127:0")),
    "batch script killed": ("FAILED|JobLaunchFailure|cpu-1|0|1|2|3|9|0|t", "", (Cause.KILLED, "SIGKILL")),
    "newer Slurm's reason": ("FAILED|RaisedSignal:11(Segmentation fault)|c|0|1|2|3|0|0|t", "", (Cause.KILLED, "SEGV")),
    "output folder missing": ("FAILED|JobLaunchFailure|cpu-1|0|1|2|3|4021|0|t", "", (Cause.LAUNCH_FAILED, "0:53")),
    "refused": ("FAILED|BadConstraints||0|1|2|3|1|0|t", "", (Cause.LAUNCH_FAILED, "BadConstraints")),
    "memory": ("OUT_OF_MEMORY|OutOfMemory|cpu-1|0|1|2|3|125|0|t", "", (Cause.HOST_OOM, "OUT_OF_MEMORY")),
    "memory of a step": ("FAILED|OutOfMemory|cpu-1|0|1|2|3|256|256|t", "", (Cause.HOST_OOM, "OutOfMemory")),
    "memory, the log": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|35072|9|t", OVER_MEMORY, (Cause.HOST_OOM, "137:0")),
    "time limit": ("TIMEOUT|TimeLimit|cpu-1|0|1|2|3|36608|15|t", "", (Cause.TIMEOUT, "TIMEOUT")),
    "node died": ("NODE_FAIL|NodeDown|v100-1|0|1|2|3|0|-2|t", "", (Cause.NODE_FAIL, "NODE_FAIL")),
    "preempted": ("PREEMPTED|None|p100-1|0|1|2|3|15|9|t", "", (Cause.PREEMPTED, "PREEMPTED")),
    "completed": ("COMPLETED|None|cpu-1|0|1|2|3|0|0|t", "", (None, None)),
    # 24.11 and 26.05 write "code:signal", as sacct does, with the whole code.
    "24.11, exit 3": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|3:0|0:0|t", "", (Cause.EXCEPTION, "FAILED 3:0")),
    "24.11, exit 75": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|75:0|75:0|t", "", (None, "checkpoint")),
    "24.11, killed": ("FAILED|NonZeroExitCode|cpu-1|0|1|2|3|137:0|0:9|t", "", (Cause.KILLED, "FAILED 137:0")),
    "24.11, batch script killed": ("FAILED|RaisedSignal:9(Killed)|c|0|1|2|3|0:9|0:0|t", "", (Cause.KILLED, "SIGKILL")),
    "24.11, command not found": ("FAILED|NonZeroExitCode|c|0|1|2|3|127:0|0:0|t", "", (Cause.LAUNCH_FAILED, "127:0")),
    "24.11, refused": ("FAILED|BadConstraints||0|1|2|3|0:1|0:0|t", "", (Cause.LAUNCH_FAILED, "BadConstraints")),
    "24.11, node died": ("NODE_FAIL|NodeDown|v100-1|0|1|2|3|0:1||t", "", (Cause.NODE_FAIL, "NODE_FAIL")),
}


@pytest.mark.parametrize("case", SQUEUE)
def test_the_queue_alone_tells_the_cause(case: str) -> None:
    """Where accounting is off, squeue's last row of a task is enough."""
    text, log, (cause, words) = SQUEUE[case]
    told = ending(one_of_squeue(text), log)
    assert told.cause is cause
    assert not told.cancelled
    assert told.message is None if words is None else words in (told.message or "")


@pytest.mark.parametrize(
    ("text", "log", "words"),
    [
        ("17_0|CANCELLED by 0|0:0|0:0|cpu-1|1|2|3|None|t\n17_0.0|CANCELLED|0:15||cpu-1|1|2|3||s", CANCELLED, "by root"),
        ("17_0|CANCELLED by 54321|0:0|0:0|cpu-1|1|2|3|None|t", "", "by user 54321"),
        ("21_0|CANCELLED|0:0|0:0|None assigned|1|None|3|PartitionTimeLimit|t", "", "does not say by whom"),
        # Requeued after a preemption, appended to the same log, then cancelled: waiting, or at work.
        ("57_0|CANCELLED by 0|0:0|0:0|None assigned|1|None|3|None|t", PREEMPTED, "by root"),
        ("57_0|CANCELLED by 0|0:0|0:0|cpu-1|1|2|3|None|t", PREEMPTED + CANCELLED, "by root"),
    ],
)
def test_a_cancelled_job_is_nobodys_failure(text: str, log: str, words: str) -> None:
    """scancel is a wish: no cause, and who had it; an earlier preemption in the log does not turn it into one."""
    told = ending(one_of_sacct(text), log)
    assert told.cancelled
    assert told.cause is None
    assert words in (told.message or "")


@pytest.mark.parametrize(
    ("log", "cause"),
    [(TIME_LIMIT, Cause.TIMEOUT), (PREEMPTED, Cause.PREEMPTED), (NODE_FAILED, Cause.NODE_FAIL)],
)
def test_the_log_knows_why_slurm_cancelled(log: str, cause: Cause) -> None:
    """A row that only says CANCELLED, or FAILED by a signal, yields to the log's DUE TO."""
    for row in ("17_0|CANCELLED by 0|0:0|0:0|cpu-1|1|2|3|None|t", "17_0|FAILED|15:0|0:15|cpu-1|1|2|3|None|t"):
        told = ending(one_of_sacct(row), log)
        assert told.cause is cause
        assert not told.cancelled


@pytest.mark.parametrize(
    ("log", "cause", "cancelled"),
    [
        (TIME_LIMIT, Cause.TIMEOUT, False),
        (PREEMPTED, Cause.PREEMPTED, False),
        (NODE_FAILED, Cause.NODE_FAIL, False),
        (OVER_MEMORY, Cause.HOST_OOM, False),
        (OVER_MEMORY_BATCH, Cause.HOST_OOM, False),
        (NEWER_OVER_MEMORY, Cause.HOST_OOM, False),
        (NEWER_NODE_FAILED, Cause.NODE_FAIL, False),
        (NEWER_TIME_LIMIT, Cause.TIMEOUT, False),
        (NEWER_CANCELLED, None, True),
        (OOM_KILL, Cause.HOST_OOM, False),
        (PROLOG, Cause.LAUNCH_FAILED, False),
        (CANCELLED, None, True),
    ],
)
def test_the_log_alone_tells_what_slurm_did(log: str, cause: Cause | None, cancelled: bool) -> None:
    """When Slurm has forgotten the job, its last words in the log still count."""
    told = from_log(log)
    assert told is not None
    assert (told.cause, told.cancelled) == (cause, cancelled)
    assert told.message


@pytest.mark.parametrize("log", ["", RAISED, CUDA, SRUN_KILLED, PREEMPTED_IN_GRACE_TIME, NEWER_PREEMPTED])
def test_a_log_without_slurms_word_tells_nothing(log: str) -> None:
    """A program's own words are no evidence of what Slurm did, and a step's end without a reason neither."""
    assert from_log(log) is None


def test_what_to_type_about_a_wait_names_the_cluster() -> None:
    """On another one the number may be a stranger's."""
    row = TaskRow(job="7_0", state="PENDING", seen=SEEN, source="squeue", reason="JobHeldUser")
    assert "'scontrol release 7_0'" in waiting(row)
    assert "'scontrol -M other release 7_0'" in waiting(row, "other")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("JobHeldUser", "'scontrol release 7_0'"),
        ("JobHeldAdmin", "administrator"),
        ("launch failed requeued held", "'scontrol release 7_0'"),
        ("launch_failed_requeued_held", "'scontrol release 7_0'"),
        ("job requeued in held state", "'scontrol release 7_0'"),
        ("PartitionNodeLimit", "for ever"),
        ("PartitionTimeLimit", "for ever"),
        ("PartitionConfig", "for ever"),
        ("BadConstraints", "for ever"),
        ("DependencyNeverSatisfied", "for ever"),
        ("QOSMaxGRESPerJob", "for ever"),
        ("QOSMinGRES", "for ever"),
        ("AssocMaxWallDurationPerJobLimit", "for ever"),
        ("InvalidQOS", "for ever"),
        ("AssocGrpCPUMinutesLimit", "until it is renewed"),
        ("AssocGrpGRES", "until others' jobs end"),
        ("QOSMaxJobsPerUserLimit", "until others' jobs end"),
        ("QOSMaxGRESPerUser", "until others' jobs end"),
        ("ReqNodeNotAvail, UnavailableNodes:cpu-1", "sinfo -R"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "sinfo -R"),
        ("PartitionDown", "closed"),
        ("Resources", "free nodes"),
        ("Priority", "its turn"),
        ("JobArrayTaskLimit", "its turn"),
        ("BeginTime", "start time"),
        ("Dependency", "depends on (Slurm"),
        ("FancyNewReason", "waits (Slurm: FancyNewReason)"),
    ],
)
def test_a_wait_says_whether_it_can_end_by_itself(reason: str, words: str) -> None:
    """Slurm's reason in plain words, with the next command where one is needed, and Slurm's word beside it."""
    said = waiting(one_of_squeue(f"PENDING|{reason}||0|1|N/A|N/A|0|0|t"))
    assert words in said
    assert said.endswith(f"(Slurm: {reason})")


def test_a_suspended_job_waits_for_its_resumption() -> None:
    """Some waits are states, not reasons."""
    assert "scontrol resume 7_0" in waiting(one_of_squeue("SUSPENDED|None|v100-1|0|1|2|3|0|0|t"))


def one_of_sacct(text: str) -> TaskRow:
    """Parse rows of one task whose name is t."""
    (row,) = parse_sacct(text, ["t"], SEEN).tasks["t"].values()
    return row


def one_of_squeue(text: str) -> TaskRow:
    """Parse one row, given from its state on."""
    return parse_squeue(f"7|0|{text}", ["t"], SEEN)["t"][0]

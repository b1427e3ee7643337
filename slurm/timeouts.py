"""How long Slurm is waited for, and how long it may lag behind: every such time with its reason."""

# A command of Slurm's. Its clients give up by themselves after 10 s by default; behind a hung munged they never do.
CALL_S = 20.0
# sbatch: three times the 10 s after which Slurm's clients give up, for "failed" here leaves open whether it was taken.
SBATCH_S = 30
KILL_AFTER_S = 5  # for an sbatch that does not heed its timeout
# An sbatch that failed, or outlives its killed submitter, may still be accepted, and seen later: by then it has ended,
# and slurmctld has worked its queue off or is down.
SETTLE_S = SBATCH_S + KILL_AFTER_S + 5.0
# A job may so long after its sbatch be missing in squeue: a controller that hung answers before it takes the job in.
GRACE_S = 60.0
# A step still "RUNNING" in an ended job may for so long only be accounting's delay.
STEPS_LAG_S = 60.0
# A job is told to stop so long before its time limit, to save and to go back into the queue.
SIGNAL_S = 90
# A job that has no more left when it is told to stop was told for its limit's sake: twice SIGNAL_S.
NEAR_LIMIT_MIN = 3
# Who waits for jobs asks so often: the scheduler is everyone's.
ASK_S = 15.0
# Room for more jobs, which others' jobs may leave as well, is asked for less often: it is three commands.
ROOM_S = 60.0

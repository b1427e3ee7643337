"""What a command may answer instead of doing its work.

SweepError            one sentence for the user and the exit code
├── InputError        the user's input is wrong: 2
└── MachineError      the machine, the disk or Slurm failed: 1
"""


class SweepError(Exception):
    """Something the user is told in one sentence."""

    exit_code = 1


class InputError(SweepError):
    """A sweep file, an option or a name that is wrong."""

    exit_code = 2


class MachineError(SweepError):
    """The machine, the disk or the scheduler failed."""

    exit_code = 1

"""The command line: parses, asks, prints. What a command means is decided in the modules it calls.

Results go to stdout; progress, questions and errors to stderr. Exit codes: 0 fine, 1 the environment failed, 2 the
input is wrong, 3 some runs failed, 4 not finished yet (3 and 4 of a waited-for submit and of status --exit-code).
"""

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from sweep.cli.data import data_app
from sweep.cli.init import init
from sweep.cli.look import logs, plan, status, watch
from sweep.cli.results import compare, export, figures, report, tables
from sweep.cli.show import show
from sweep.cli.submit import cancel, retry, submit
from sweep.cli.upkeep import clean, doctor, verify
from sweep.errors import InputError, MachineError, SweepError
from trainer.data.prepared import DataError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Run a grid of trainings, on Slurm or here: plan, submit, status, retry, report."""


for command in (  # in the order that '--help' lists them
    *(plan, submit, retry, status, show, watch, logs, cancel),
    *(init, doctor, verify, clean),
    *(tables, figures, compare, report, export),
):
    app.command()(command)


def main() -> NoReturn:
    """Run the command line; every error the user can have becomes one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (SweepError, DataError, OSError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"sweep: {error}", file=sys.stderr)
        if isinstance(error, DataError):
            sys.exit(InputError.exit_code)
        sys.exit(error.exit_code if isinstance(error, SweepError) else MachineError.exit_code)
    sys.exit(0)

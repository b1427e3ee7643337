"""`python -m trainer`: train one run, or a bundle of runs, and answer with an exit code that says how it ended.

Exit codes: 0 done (also when it was done before) · 1 failed, see error.json · 2 the call is wrong · 69 another process
owns the run · 75 interrupted, the next call continues. A bundle whose GPU breaks goes on in a fresh process.
"""

import argparse
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError
from trainer.loop.libraries import settle_libraries
from trainer.models.catalog import ARCHITECTURES, is_reference
from trainer.records.attempt import ExitCode
from trainer.records.code import module_command, own_snapshot
from trainer.records.files import RecordError, read_json
from trainer.records.process import job_name, of_torchrun, restarts
from trainer.records.recipe import Recipe, sharing_problem
from trainer.records.run import Bundle, KeepCheckpoints, Options, Run, RunFolder, RunSpec
from trainer.run.checks import UsageError
from trainer.run.early_exit import Job, all_settled, answer_at_once
from trainer.stop import StopSignal

log = logging.getLogger("trainer")


def main(arguments: list[str] | None = None) -> int:
    """Parse the call and train. Returns the exit code."""
    settle_libraries(own_cores="SLURM_JOB_ID" in os.environ)
    stop = StopSignal().install()  # before torch's second of imports, so that no signal is lost
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # whoever ends a process that is stuck asks first where it stands
    parser = _parser()
    call = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    rank, size = of_torchrun()
    try:
        if call.follow or rank > 0:
            from trainer.run.follow import follow

            return follow(rank, size, stop, child=call.follow).value
        if size > 1 and (call.bundle or call.processes > 1):
            parser.error("torchrun starts the processes of one run; leave --bundle and --processes away, or torchrun")
        if os.environ.get("LOCAL_WORLD_SIZE", str(size)) != str(size):
            parser.error("torchrun gave several nodes; the processes of a run share one: use '--nnodes 1'")
        return (_train_bundle(call, stop) if call.bundle else _train_one(parser, call, stop)).value
    except OSError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return ExitCode.FAILED.value


def _train_bundle(call: argparse.Namespace, stop: StopSignal) -> ExitCode:
    try:
        bundle = read_json(call.bundle, Bundle)
    except RecordError as error:
        return _refuse(error)
    if bundle is None:
        return _refuse(f"{call.bundle}: no such file")
    if not 0 <= call.task < len(bundle.tasks):
        return _refuse(f"{call.bundle}: has no task {call.task}, only {len(bundle.tasks)} of them")
    job = Job(call.job or job_name(), bundle.submission, bundle.pool, restarts(), bundle.code)
    if all_settled(bundle, call.task, job):
        return ExitCode.DONE
    from trainer.run.bundle import execute_bundle

    code = execute_bundle(bundle, call.task, job, stop, after_gpu_fault=call.after_gpu_fault)
    if code is ExitCode.GPU_FAULT:
        _go_on_afresh(call, job)
    return code


def _go_on_afresh(call: argparse.Namespace, job: Job) -> None:
    """Become a new process with the same number, and nothing of the GPU's: whoever waits for this one sees no end."""
    log.warning("the GPU is of no more use to this process; a fresh one goes on with the other runs")
    sys.stdout.flush()
    sys.stderr.flush()
    os.closerange(3, 1 << 16)  # the driver's files among them, which would keep the memory
    bundle = ["--bundle", str(call.bundle), "--task", str(call.task)]
    command = module_command("trainer", own_snapshot())
    os.execv(sys.executable, [*command, *bundle, "--job", job.id, "--after-gpu-fault"])  # noqa: S606  no shell is wanted


def _train_one(parser: argparse.ArgumentParser, call: argparse.Namespace, stop: StopSignal) -> ExitCode:
    for name in ("architecture", "dataset", "ratio", "seed", "data", "output"):
        if getattr(call, name) is None:
            parser.error(f"--{name} is missing")
    if call.architecture not in ARCHITECTURES and not is_reference(call.architecture):
        known = ", ".join(ARCHITECTURES)
        parser.error(f"--architecture {call.architecture}: none of {known}, and no reference like module:function")
    if not 0 < call.ratio <= 1:
        parser.error(f"--ratio {call.ratio}: must be above 0 and at most 1")
    if call.seed < 0:
        parser.error(f"--seed {call.seed}: must not be negative")
    if call.processes < 1:
        parser.error(f"--processes {call.processes}: must be at least 1")
    given = {name: getattr(call, name) for name in Recipe.model_fields if getattr(call, name) is not None}
    try:
        recipe = Recipe(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "recipe"
        parser.error(f"--{name} {first['input']}: {first['msg']}")
    run = Run(
        id=call.output.resolve().name,
        architecture=call.architecture,
        dataset=call.dataset,
        ratio=call.ratio,
        seed=call.seed,
    )
    options = Options(
        device=call.device,
        threads=call.threads,
        checkpoint_interval_s=call.checkpoint_interval,
        keep_checkpoints=call.keep_checkpoints,
        processes=max(call.processes, of_torchrun()[1]),
    )
    spec, folder = RunSpec(run=run, training=recipe), RunFolder(call.output)
    job = Job(call.job or job_name(), None, call.pool, restarts())
    started = of_torchrun()[1] > 1
    problem = sharing_problem(recipe, options.processes)
    if problem:
        parser.error(f"--processes: {problem}")
    try:
        settled = answer_at_once(spec, folder, job, options)
    except UsageError as error:
        return _refuse(error)
    if settled is not None and not started:
        return settled
    from trainer.distributed.launch import Others
    from trainer.loop.device import DeviceError
    from trainer.run.execute import execute

    others = Others(options.processes, stop, started=started) if options.processes > 1 else None
    try:
        if settled is not None:
            return settled
        return execute(spec, folder, call.data, job, options, stop, others)
    except (UsageError, DataError, DeviceError) as error:
        return _refuse(error)
    finally:
        if others:
            others.dismiss()


def _refuse(reason: object) -> ExitCode:
    print(f"trainer: {reason}", file=sys.stderr)
    return ExitCode.USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train one run to its result.json, or continue it; the same call again does no harm.",
        epilog="exit codes: 0 done, 1 failed, 2 wrong call, 69 another process owns the run, 75 interrupted",
    )
    one = parser.add_argument_group("the run")
    one.add_argument("--architecture", help=f"{', '.join(ARCHITECTURES)}, or anyone's as module:function")
    one.add_argument("--dataset", choices=list(DATASETS))
    one.add_argument("--ratio", type=float, help="share of the training images, above 0 to 1")
    one.add_argument("--seed", type=int)
    one.add_argument("--data", type=Path, metavar="DIR", help="where 'sweep data prepare' put the datasets")
    one.add_argument("--output", type=Path, metavar="RUN_DIR", help="the run's own folder; its name is the run's id")
    recipe = parser.add_argument_group("the recipe (defaults are the study's)")
    for name, info in Recipe.model_fields.items():
        _add_recipe_option(recipe, name, info.default)
    how = parser.add_argument_group("execution")
    how.add_argument("--device", default="auto", help="auto, cpu or cuda")
    how.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    how.add_argument(
        "--processes", type=int, default=1, metavar="N", help="share the replicas among N, each with a GPU of its own"
    )
    how.add_argument("--checkpoint-interval", type=float, default=30.0, metavar="SECONDS")
    how.add_argument(
        "--keep-checkpoints", choices=get_args(KeepCheckpoints), default="none", help="of a run that is done"
    )
    how.add_argument("--pool", default="local", help="recorded in the result")
    how.add_argument("--job", help="recorded with the attempt; Slurm's job id by default")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="train the runs this file lists instead")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)  # one of another's --processes
    parser.add_argument("--after-gpu-fault", action="store_true", help=argparse.SUPPRESS)  # from the process before
    parser.add_argument("--task", type=int, default=0, metavar="N", help="those of the bundle's task N")
    return parser


def _add_recipe_option(group: "argparse._ArgumentGroup", name: str, default: object) -> None:
    option = "--" + name.replace("_", "-")
    if isinstance(default, bool):
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
    elif isinstance(default, tuple):
        kind = type(default[0])
        shown = " ".join(str(item) for item in default)
        group.add_argument(option, type=kind, nargs="*", metavar="N", help=f"default {shown}")
    else:
        group.add_argument(option, type=type(default), metavar=name.split("_")[-1].upper(), help=f"default {default}")


if __name__ == "__main__":
    sys.exit(main())

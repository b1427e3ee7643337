"""The commands that keep a sweep in order: doctor, verify, clean. Only parse, ask and print."""

from collections.abc import Sequence
from typing import Annotated

import typer

from sweep.cli.console import confirm, err, out, print_json, tell
from sweep.cli.options import DEFAULT_FILE, ClusterFile, Data, DryRun, File, Json, Output, Yes
from sweep.config.load import load_sweep
from sweep.doctor.check import Verdict
from sweep.errors import MachineError
from sweep.plan.networks import with_networks
from sweep.upkeep.problems import Finding, Kind

FOUND = 3
CHECK_STYLES = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.PROBLEM: "bold red",
    Verdict.SKIPPED: "dim",
}
STYLES = {Kind.DAMAGED: "bold red", Kind.INCONSISTENT: "red", Kind.HALF_WRITTEN: "yellow", Kind.ORPHANED: "cyan"}


def doctor(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    probe: Annotated[bool, typer.Option(help="also look from a compute node of each pool")] = True,
    json_: Json = False,
) -> None:
    """Check what a sweep needs before it is submitted: Slurm, the pools, folders, data, torch, disk space."""
    from sweep.doctor.examine import examine

    sweep = with_networks(load_sweep(file, output=output, data=data, cluster=cluster), tell)
    checks = []
    for check in examine(sweep, sweep.cluster.pools if sweep.cluster else {}, probe=probe):
        checks.append(check)
        if not json_:
            out.print(check.line(), style=CHECK_STYLES[check.state], highlight=False, soft_wrap=True, markup=False)
    if json_:
        print_json(sweep=sweep.name, checks=[check._asdict() for check in checks])
    raise typer.Exit(MachineError.exit_code if any(check.state is Verdict.PROBLEM for check in checks) else 0)


def verify(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, json_: Json = False) -> None:
    """Read everything again that is on disk, and say what is damaged or out of place; exit 3 if anything is."""
    from sweep.cli.progress import bar
    from sweep.upkeep.verify import verify as verified

    sweep = load_sweep(file, output=output, data=data)
    found = verified(sweep, bar(err) if err.is_terminal else None)
    if json_:
        print_json(sweep=sweep.name, folder=str(sweep.folder), findings=[finding._asdict() for finding in found])
    elif out.is_terminal:
        _draw(found)
    else:
        for finding in found:
            print("\t".join(_one_line(text) for text in (finding.kind.value, *finding[1:4])))
    if not found:
        err.print(f"{sweep.folder}: all is well", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(FOUND if found else 0)


def clean(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    superseded: Annotated[bool, typer.Option("--superseded", help="also run folders that were set aside")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Free disk space: checkpoints of done runs, their code, what killed writers left. Results and logs stay."""
    from sweep.upkeep.clean import amount, find_needless, free

    sweep = load_sweep(file, output=output, data=data)
    needless = find_needless(sweep)
    checkpoints = [path for paths in needless.checkpoints.values() for path in paths]
    wanted = [*checkpoints, *needless.code, *needless.leftovers, *(needless.aside if superseded else ())]
    details = []
    if checkpoints:
        details.append(f"checkpoints of {len(needless.checkpoints)} done runs: {amount(checkpoints)}")
    if needless.code:
        details.append(f"code that no unfinished run was submitted with: {amount(needless.code)}")
    if needless.leftovers:
        details.append(f"half-written files of killed processes: {amount(needless.leftovers)}")
    if needless.aside:
        stay = "" if superseded else "; they stay without '--superseded'"
        details.append(f"{len(needless.aside)} run folders in superseded/: {amount(needless.aside)}{stay}")
    if not wanted:
        err.print("nothing to free", *(f"({line})" for line in details), highlight=False, soft_wrap=True)
        raise typer.Exit
    confirm(f"free {amount(wanted)} in {sweep.folder}", details, yes=yes, dry_run=dry_run)
    freed, problems = free(sweep, needless, superseded=superseded)
    err.print(f"freed {freed}", highlight=False, soft_wrap=True)
    if problems:
        raise MachineError(
            f"{len(problems)} could not be removed, first {problems[0].filename}: {problems[0].strerror}"
        )


def _draw(found: Sequence[Finding]) -> None:
    """Print the findings by kind, equal ones of many runs once."""
    alike: dict[tuple[Kind, str, str], list[Finding]] = {}
    for finding in found:
        key = (finding.kind, finding.what, _of_any_run(finding, finding.remedy))
        alike.setdefault(key, []).append(finding)
    shown: Kind | None = None
    for (kind, what, _), findings in alike.items():
        if kind is not shown:
            shown = kind
            count = sum(one.kind is kind for one in found)
            out.print(f"{kind.value} ({count})", style=STYLES[kind], highlight=False)
        more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
        out.print(f"  {findings[0].path}{more}: {what}", highlight=False, markup=False, soft_wrap=True)
        out.print(f"    → {findings[0].remedy}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _of_any_run(finding: Finding, text: str) -> str:
    return text.replace(finding.run, "RUN") if finding.run else text


def _one_line(text: str) -> str:
    return " ".join(text.split())

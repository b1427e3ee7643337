"""Which code a run goes with: that of its newest attempt where it goes on from one, otherwise the present."""

from collections.abc import Mapping, Sequence

from slurm.code import damage, snapshot
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.plan.rows import PlanRow
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from trainer.records.code import Code
from trainer.records.run import other_work


def choose_codes(sweep: Sweep, rows: Sequence[PlanRow], seen: Look, present: Code, *, new: bool) -> dict[str, Code]:
    """The code of each run, by its id. present: that of now, which all take if they are to be new.

    Raises InputError when a copy that a run would go on with is not there any more.
    """
    codes = {row.id: present if new else begun_with(sweep, row, seen) or present for row in rows}
    submissions = SweepFolder(sweep.folder).submissions
    for code in set(codes.values()):
        if code.snapshot == present.snapshot:
            continue
        problem = damage(snapshot(submissions, code))
        if problem:
            run_id = next(run_id for run_id, its in codes.items() if its == code)
            words = f"{problem}, and {run_id} was begun with it; '--new-code' continues with the code as it is now"
            raise InputError(f"{snapshot(submissions, code)}: {words}")
    return {run_id: present if code.snapshot == present.snapshot else code for run_id, code in codes.items()}


def begun_with(sweep: Sweep, row: PlanRow, seen: Look) -> Code | None:
    """The code of the newest attempt of a run that is to go on from it; None where there is none, or none is known."""
    found = seen.evidence[row.id]
    if found.result is not None or found.attempt is None:
        return None
    spec = row.placed.spec
    if found.commitment and other_work(found.commitment, spec, sweep.fingerprints.get(spec.run.dataset)):
        return None
    return next((each.code_of(row.id) for each in seen.submissions if each.token == found.attempt.submission), None)


def code_words(codes: Mapping[str, Code], present: Code) -> list[str]:
    """What the user should know of it: that the code is in no commit, and that runs go on with other code."""
    words = []
    kept = {run_id: code for run_id, code in codes.items() if code != present}
    if present.dirty and len(kept) < len(codes):
        words.append(f"the jobs run the code as it is now: {present}")
    if kept:
        runs = next(iter(kept)) + (f" and {len(kept) - 1} more" if len(kept) > 1 else "")
        named = " and ".join(dict.fromkeys(map(str, kept.values())))
        words.append(
            f"{runs}: continues with the code that began it ({named}); the code here differs, and '--new-code' uses it"
        )
    return words

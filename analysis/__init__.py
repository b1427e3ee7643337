"""From result files to tables, figures and pages. `analysis.load("runs/thesis")` returns the finished runs as a
DataFrame, `analysis.load_history` their epochs.

Imports the trainer's records, never torch, submitit, sweep or slurm; pandas only when a DataFrame is asked for.
"""

# Bound here, not on first use, so that importing the module `analysis.load` does not replace the function.
from analysis.errors import AnalysisError
from analysis.load import load, load_history

__all__ = ["AnalysisError", "load", "load_history"]

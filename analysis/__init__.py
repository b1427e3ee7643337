"""From result files to what a reader sees: `analysis.load("runs/thesis")` gives the finished runs as a DataFrame,
`analysis.load_history` their epochs.

Reads records, never torch, submitit, sweep or slurm. Importing this does not import pandas.
"""

# Bound here, not on first use: `analysis.load` stays the function also after someone imported the module of that name.
from analysis.errors import AnalysisError
from analysis.load import load, load_history

__all__ = ["AnalysisError", "load", "load_history"]

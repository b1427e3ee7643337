"""How every run stands: from the files of a sweep and from what Slurm says to states."""

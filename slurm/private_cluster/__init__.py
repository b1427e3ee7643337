"""A private Slurm cluster: real Slurm in a folder of this machine, to try things out and for tests.

Four nodes share the machine. Their GPUs are stand-ins that cannot compute; a job sees which it was given.
"""

"""A private Slurm cluster: real Slurm in one folder of this machine, for trying out and for tests.

Four nodes share the machine; their GPUs are stand-ins that nothing can compute on. A job sees which it was given.
"""

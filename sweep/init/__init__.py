"""A cluster file and a first sweep file for the place one is at, written from what Slurm says of itself."""

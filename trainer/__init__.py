"""Train one run of a sweep, standalone: data, models, the loop, checkpoints, records. Imports nothing of the sweep."""

"""Side-by-side measurements: the study's trainer beside the Lightning pipeline that a user would otherwise run.

The way of one number: `cases.py` (what to measure) → `launch.py` (a process a measurement, `rounds.py` and `growth.py`
say in which order) → `ours.py` or `peer_lightning.py`, timed by `watch.py` → `records.py` (one JSON file) →
`summary.py` (the arithmetic) → `report.py` and `plot.py`.
"""

"""Compare the study's trainer with the Lightning pipeline that a user would otherwise run.

The way of one number: `cases.py` (what to measure) → `launch.py` (a process per measurement, in the order of
`rounds.py` and `growth.py`) → `ours.py` or `peer_lightning.py`, timed by `watch.py` → `records.py` (one JSON file) →
`summary.py` (the arithmetic) → `report.py` and `plot.py`.
"""

"""Probe the trainer on a GPU: correctness, speed, memory and faults, in eight minutes and without network.

The way of one number: `__main__.py` (which parts, in which order, until when) → a process per part (`machine.py`,
`drawing.py`, `end_to_end.py`, `repeats.py`, `curves.py`, `inside.py`, `memory.py`, `faults.py`, `speeds.py`) → one JSON
file, which grows as parts answer → `page.py`. `setting.py` has the options of all parts, `making.py` creates trainers.
"""

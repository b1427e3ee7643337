"""What a GPU does with the trainer: correctness, speed, memory and faults, in eight minutes and without network.

The way of one number: `__main__.py` (which parts, in which order, until when) → a process a part (`machine.py`,
`drawing.py`, `end_to_end.py`, `repeats.py`, `curves.py`, `inside.py`, `memory.py`, `faults.py`, `speeds.py`) → one JSON
file, which grows as parts answer → `page.py`. `setting.py` is what all parts are told, `making.py` how they make runs.
"""

"""Check the trainer on a GPU: correctness, speed, memory and faults, in eight minutes and without network.

The way of one number: `__main__.py` (which Python packages, which parts, until when) → `schedule.py` (a process per
part) → `machine.py`, `smoke.py`, `memory.py`, `curves.py`, `faults.py`, `inside.py` or `speeds.py` → `verdicts.py`
(as expected, or not) → `page.py`. `setting.py` has the options of all parts, `making.py` creates trainers.
"""

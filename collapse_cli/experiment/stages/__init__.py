"""The kinds of stages, a file each: what such a stage is made from (its key), what it does, what it costs, how it is shown.

A new kind is a new file, and its name in `KINDS` (`experiment/kinds.py`).
"""

"""Executors: where stages are computed. `base.py` says what one has to offer; the scheduler decides what it is given."""

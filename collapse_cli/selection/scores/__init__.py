"""Scores of rows, a file each; which there are, and what each reads, is a line in `config/selection.py`."""

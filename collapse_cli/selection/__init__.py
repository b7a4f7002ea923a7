"""Which rows enter a corpus: scores (`scores/`, a file each), rules from scores to rows (`rules.py`), and what became of it all
(`audit.py`). `steps.py` goes through the steps of the section `select`; `score.py` says what a score, and a change of rows, is.
"""

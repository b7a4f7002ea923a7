"""What happens to a model when its training data are partly made by earlier models, and what stops it?

Start reading in `loop.py`: it holds the generational loop and the bodies of its stages.
"""

from collapse_cli.threads import let_threads_sleep

__version__ = "0.1.0"

let_threads_sleep()  # here, because OpenMP reads its settings once, while torch is imported

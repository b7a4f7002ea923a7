"""What holds for a whole process of ours: how quiet its libraries are, and how much memory it took."""

import logging
import sys


def quiet_libraries() -> None:
    """No progress bars and advice of transformers and datasets between our own lines."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it cannot read is said by our own errors
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def peak_memory_mb() -> int:
    """The most memory this process has held so far, in MB; on a GPU, what torch held there."""
    torch = sys.modules.get("torch")  # where it was never needed it holds nothing
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated()) >> 20
    try:
        import resource
    except ImportError:  # not on Windows
        import psutil

        return int(psutil.Process().memory_info().rss) >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20

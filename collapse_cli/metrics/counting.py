"""Which seeds means are over while a run is not finished."""

from collections.abc import Collection, Mapping


def counted(measured: Mapping[int, Collection[int]]) -> tuple[int, list[int]] | None:
    """The last generation to look at, and the seeds to count: those with generation 0 and with it.

    Of a run that is not finished it is the generation up to which most is measured, in seeds × generations.

    Args:
        measured: the seeds of each generation.

    Returns:
        None without a generation 0.
    """
    if not measured.get(0):
        return None
    first = set(measured[0])
    common = {generation: sorted(first.intersection(seeds)) for generation, seeds in measured.items()}
    last = max(common, key=lambda generation: (len(common[generation]) * generation, generation))
    return last, common[last]

"""The kinds of stages, a file each: what such a stage is made from (its key), what it does, what it costs, how it is shown.

A new kind is a new file, and its name in `KINDS`.
"""

from collapse_cli.engine.stage import StageKind
from collapse_cli.experiment.stages.block import BLOCK
from collapse_cli.experiment.stages.cells import CELLS
from collapse_cli.experiment.stages.combine import COMBINE
from collapse_cli.experiment.stages.data import DATA
from collapse_cli.experiment.stages.eval import EVAL
from collapse_cli.experiment.stages.examine import EXAMINE
from collapse_cli.experiment.stages.generate import GENERATE
from collapse_cli.experiment.stages.mix import MIX
from collapse_cli.experiment.stages.real import REAL
from collapse_cli.experiment.stages.sample import SAMPLE
from collapse_cli.experiment.stages.train import TRAIN

KINDS: tuple[StageKind, ...] = (
    DATA,
    TRAIN,
    SAMPLE,
    MIX,
    EVAL,
    REAL,
    EXAMINE,
    BLOCK,  # many generations
    CELLS,  # many cells of a mixture
    GENERATE,
    COMBINE,
)

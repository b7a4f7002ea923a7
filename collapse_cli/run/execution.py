"""How a run is computed: how much at a time, and by what. None of it is in a key."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from collapse_cli import families
from collapse_cli.config import Experiment
from collapse_cli.errors import ConfigError
from collapse_cli.run import ray_cluster

Executor = Literal["local", "ray"]


@dataclass(frozen=True)
class Execution:
    """What `--jobs`, `--executor`, `--shards` and `--devices` ask for.

    Attributes:
        jobs: how many stages to compute at the same time; 0: as many as pay, or as a cluster has room for.
        executor: what computes the stages: `local`, processes of this machine; `ray`, a Ray cluster.
        shards: in how many parts to compute long stages; 1: whole.
        devices: how many devices train one model together.
    """

    jobs: int = 0
    executor: Executor = "local"
    shards: int = 1
    devices: int = 1

    def check(self, config: Experiment, given: Sequence[str] = ()) -> None:
        """Whether an experiment can be computed so; whether the devices are there is known once torch is.

        Args:
            given: settings of the command line, `KEY=VALUE`.

        Raises:
            ConfigError: where not, and for a setting of an executor that is not asked for.
        """
        if self.executor == "ray":
            ray_cluster.check(config)
        elif unread := [setting.partition("=")[0].strip() for setting in given if setting.strip().startswith("ray.")]:
            raise ConfigError(f"{unread[0]} has no effect without --executor ray")
        if self.devices == 1:
            return
        if not families.of(config.learner).begins_with_a_model:
            raise ConfigError(
                f"--devices {self.devices}: language models alone are trained on several devices, and this is an experiment with "
                f"{config.learner}; leave it out (--jobs says how many stages are computed at the same time)"
            )
        if sys.platform == "win32":
            raise ConfigError(f"--devices {self.devices}: on Windows a model is trained on one device; leave it out")


DEFAULT = Execution()

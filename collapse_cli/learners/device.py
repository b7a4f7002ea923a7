"""What the process of another device does: it takes part in trainings that `device_processes.py` tells it of."""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import UserError
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.learners.protocol import Hints, silent
from collapse_cli.lm.devices import Group, GroupError
from collapse_cli.lm.memory import give_back, is_out_of_memory
from collapse_cli.lm.model import device
from collapse_cli.process import answers_alone, lines_of_input, quiet_libraries


def main() -> int:
    """Take part in one training after another, until the input ends."""
    answers, orders, log = answers_alone(), lines_of_input(), logging.getLogger("collapse_cli")
    log.addHandler(logging.NullHandler())
    log.propagate = False  # the first device says the same

    def say(event: str, **what: str) -> None:
        answers.write(json.dumps({"event": event, **what}) + "\n")

    quiet_libraries()
    for order in orders:
        try:
            _train(order, lambda: say("ready"))
            say("done")
            give_back()  # the next training may be long in coming
        except GroupError:  # who left says why, and the first device what comes next
            continue
        except UserError as error:
            say("mistake", text=str(error))
            return 1
        except Exception as error:
            which = f"device {order['rank'] + 1} of {order['count']}"
            if is_out_of_memory(error):
                say(
                    "mistake",
                    text=f"memory ran out on {which} of a training; take fewer --devices, or a smaller model or batch",
                )
            else:
                say("failure", text=f"{which}:\n{traceback.format_exc()}")
            return 1
    return 0


def _train(order: Mapping[str, Any], ready: Callable[[], None]) -> None:
    kind = device().type
    if kind == "cuda":
        torch.cuda.set_device(order["rank"])
    torch.set_num_threads(order["threads"])
    learner = LanguageModel(order["params"], Hints.from_record(order["hints"]), silent)
    if order["start"]:
        learner.load(Path(order["start"]))
    rows, scratch = Dataset.load(Path(order["rows"])), Path(order["scratch"])

    def join() -> Group:
        ready()
        return Group(order["rank"], order["count"], Path(order["place"]), kind)

    learner.fit_together(rows, seed=order["seed"], scratch=scratch, join=join)

"""What a node of a Ray cluster does with a stage, and what it says where it lacks what the run needs; no Ray is needed for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.selected import experiment

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.experiment import kinds
from collapse_cli.run import ray_task

TREE = {
    "learner": "gaussian",
    "loop": {"generations": 1, "policies": ["keep-0"]},
    "data": {"source": "blobs", "rows": 50, "blobs": {"dimensions": 1}},
}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "store")
    made.begin()
    return made


@pytest.fixture
def order(store: FolderStore) -> dict[str, Any]:
    config, hints = experiment(TREE)
    planned = kinds.plan(config, hints)
    return ray_task.order_of(config.model_dump(mode="json"), hints.record(), store.address, planned)


def told(order: dict[str, Any]) -> list[dict[str, Any]]:
    """What a node says while it computes the first stage of the plan."""
    config, hints = experiment(TREE)
    key = next(iter(kinds.plan(config, hints).stages))
    return [json.loads(line) for line in ray_task.computed(json.dumps(order), key, 1, 0.1)]


def test_a_stage_is_computed_and_told_of(order: dict[str, Any], store: FolderStore) -> None:
    events = [message["event"] for message in told(order)]
    assert (events[0], events[-1]) == ("started", "finished")
    assert len(store.keys()) == 1
    assert store.unfinished() == []


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"store": "/no/such/folder/store"}, "has no folder /no/such/folder/store; choose a --runs-dir that all nodes"),
        ({"paths": ["/no/such/model"]}, "lacks /no/such/model, which the run reads; put it on all nodes"),
        ({"version": "0.0.0"}, "and the run was started with 0.0.0; install one version on all nodes"),
        ({"keys": "0"}, "plans other stages than the run's own machine; install one version"),
    ],
)
def test_a_node_without_what_the_run_needs(
    order: dict[str, Any], store: FolderStore, lacking: dict[str, Any], words: str
) -> None:
    """The order says what there is on the run's own machine; here it says more than the node has."""
    (message,) = told(order | lacking)
    assert message["event"] == "mistake"
    assert message["text"].startswith("the node ")
    assert words in message["text"]
    assert store.keys() == store.unfinished() == []

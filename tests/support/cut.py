"""Presets cut down in size, so that each takes seconds: by preset, the options that differ."""

from typing import Any

CUT: dict[str, dict[str, Any]] = {
    "nature-gaussian": {"loop": {"generations": 9, "seeds": [0, 1]}, "gaussian": {"trials": 5}},
    "nature-gmm": {"loop": {"generations": 3, "seeds": [0]}, "data": {"rows": 500}},
    "nature-gmm-full": {"loop": {"generations": 2, "seeds": [0]}, "data": {"rows": 500}},
    "nature-vae": {
        "loop": {"generations": 2, "seeds": [0]},
        "data": {"rows": 200, "eval_rows": 50},
        "vae": {"epochs": 1, "channels": [4, 8]},
    },
    "strong-ridge": {
        "loop": {"seeds": [0, 1, 2, 3]},
        "mixture": {"rows": [200, 500, 1000, 2000], "share": [0.0, 0.1, 0.5], "quality": [0.0, 0.5]},
    },
    "strong-projections": {
        "loop": {"seeds": [0, 1]},
        "mixture": {"rows": [500], "share": [0.5], "quality": [0.5, 1.0, 2.0], "size": [50, 300, 1000]},
    },
    "strong-weighted": {
        "loop": {"seeds": [0, 1, 2]},
        "mixture": {"rows": [300, 1000], "weight": [0.0, 0.075, 0.2, 0.5]},
    },
    "strong-iterative": {
        "loop": {"seeds": [0, 1, 2]},
        "mixture": {"rows": [300, 1000], "share": [0.0, 0.5], "iterations": [1, 4]},
    },
    "strong-mlp": {
        "loop": {"seeds": [0]},
        "mlp": {"steps": 5},
        "mixture": {"rows": [50, 100], "share": [0.0, 0.5], "size": [20], "generator_rows": [40]},
    },
    "strong-gpt2": {
        "loop": {"seeds": [0]},
        "data": {"zipf": {"train_tokens": 16384, "test_tokens": 1024}},
        "train": {"epochs": 1},
        "mixture": {"rows": [32], "share": [0.0, 0.5], "size": [1], "generator_rows": [32]},
    },
    "generational-regression": {"loop": {"generations": 5, "seeds": [0, 1, 2, 3]}},
    "ngram-zipf": {"loop": {"generations": 2, "seeds": [0]}},
}
LATER: dict[str, dict[str, Any]] = {  # presets that commits before 2026-11-26 do not have
    "world": {
        "loop": {"generations": 1},
        "data": {"world": {"train_documents": 60, "test_documents": 20}},
        "train": {"epochs": 1},
    },
    "budgets": {"loop": {"generations": 2, "seeds": [0, 1]}, "gaussian": {"trials": 5}},
    "verifier": {"loop": {"seeds": [0, 1]}, "data": {"rows": 500}},
    "exchange": {"loop": {"generations": 8, "seeds": [0, 1]}, "gaussian": {"trials": 5}},
}
SOME: dict[str, tuple[str, ...]] = {  # variants that stand for all
    "exchange": ("two-public", "loop-segments", "ridge-four"),
}

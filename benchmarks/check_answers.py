"""`collapse check` on cases whose answer is known, and the page docs/results/check.md.

    python benchmarks/check_answers.py texts --world runs/world --work /tmp/check
    python benchmarks/check_answers.py run --work /tmp/check [--case itself]
    python benchmarks/check_answers.py page --work /tmp/check
    python benchmarks/check_answers.py false-alarms --work /tmp/check --times 200

`texts` writes the texts: the real one is the training text of the preset `world`; the others are it itself, its words shuffled, a tenth of its rows a
hundred times, and what models of generations 0, 2 and 8 of a finished keep-0 run wrote, which are the rows that generations 1, 3 and 9 are trained on.
`false-alarms` compares two random halves of one text again and again without training, and counts what is claimed.
"""

import argparse
import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GENERATIONS = (1, 3, 9)
CASES = {
    "itself": "the real text itself",
    "shuffled": "the real text, the words of each row shuffled",
    "tenth": "the real text, a tenth of its rows a hundred times",
    **{f"generation-{g}": f"what generation {g} of keep-0 is trained on" for g in GENERATIONS},
}
ASKED = ("--jobs", "1", "--set", "train.steps=60", "--set", "mixture.share=[0.0,0.5,1.0]")


def write(path: Path, rows: Sequence[str]) -> None:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")


def spoken(run: Path, generation: int) -> list[str]:
    """What the model of a generation wrote in a finished keep-0 run, seed 0: the rows that the next generation is trained on."""
    from collapse_cli.data.dataset import Dataset
    from collapse_cli.lm.text import load_tokenizer
    from collapse_cli.records.runs import store_of

    stages, store = json.loads((run / "plan.json").read_text(encoding="utf-8"))["stages"], store_of(run.parent)
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    (model,) = (
        row["model_key"]
        for row in lines
        if (row["policy"], row["seed"], row["generation"]) == ("keep-0", 0, generation)
    )
    made = next(stage for stage in stages if stage["kind"] == "sample" and stage["inputs"]["model"] == model)
    tokenizer = load_tokenizer(store.get(made["inputs"]["data"]).file("tokenizer"))
    rows = Dataset.load(store.get(made["key"]).file("rows.safetensors")).arrays
    return [
        tokenizer.decode(ids[:length].tolist(), skip_special_tokens=True).strip() + "\n"
        for ids, length in zip(rows["tokens"], rows["lengths"], strict=True)
    ]


def texts(world: Path, work: Path) -> None:
    from collapse_cli.data.dataset import load_text

    work.mkdir(parents=True, exist_ok=True)
    record = json.loads((world / "run.json").read_text(encoding="utf-8"))
    options = json.dumps(record["config"]["data"]["world"])
    real = list(load_text("world", language=options).splits["train"])
    draw = random.Random(0)
    mixed = [" ".join(draw.sample(words := row.split(), len(words))) + "\n" for row in real]
    tenth = len(real) // 10
    write(work / "real.jsonl", real)
    write(work / "itself.jsonl", real)
    write(work / "shuffled.jsonl", mixed)
    write(work / "tenth.jsonl", [*real[tenth:], *(row for row in real[:tenth] for _ in range(100))])

    for generation in GENERATIONS:
        write(work / f"generation-{generation}.jsonl", spoken(world, generation - 1)[: len(real)])


def run(work: Path, case: str) -> dict[str, Any]:
    """The record of a case, made where it is not there yet."""
    from collapse_cli.__main__ import main

    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = main(
            [
                "check",
                str(work / "real.jsonl"),
                str(work / f"{case}.jsonl"),
                "--name",
                case,
                *ASKED,
                "--json",
                "--runs-dir",
                str(work / "runs"),
            ]
        )
    assert code == 0, case
    record: dict[str, Any] = json.loads(out.getvalue())
    (work / f"{case}.json").write_text(json.dumps(record), encoding="utf-8")
    return record


def _changed(effect: Any) -> str:
    from collapse_cli.metrics.numbers import factors

    if effect is None or effect.ratio is None:
        return "–"
    mean, ends = factors(effect.ratio)
    return f"{mean} ({ends})"


def page(work: Path) -> str:
    from collapse_cli.findings.shares import verdict_of
    from collapse_cli.records.rundir import RunFolder

    rows, said = [], []
    for case, what in CASES.items():
        file = work / f"{case}.json"
        if not file.exists():
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        folder = RunFolder(work / "runs", case)
        verdict = verdict_of(folder.rows(), record["checked"]["training"])
        assert verdict is not None
        each = {round(effect.amount, 2): effect for effect in verdict.replaced}
        more = verdict.added[-1]
        cells = [_changed(each.get(share)) for share in (0.5, 1.0)] + [_changed(more)]
        telling = record["checked"]["texts"]["telling"]
        best = ", ".join(f"{share:.0%}" for share in verdict.best)
        rows.append([what, f"{telling['auc']:.2f} ({telling['low']:.2f} to {telling['high']:.2f})", *cells, best])
        sentences = "\n".join(f"- {remark['text']}" for remark in record["remarks"])
        said.append(f"### {what[:1].upper()}{what[1:]}\n\n{sentences}\n")
    head = ["synthetic text", "AUC", "50% replaced", "100% replaced", "added as much", "best share"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return f"{table}\n\n## What is said\n\n" + "\n".join(said)


def false_alarms(work: Path, times: int) -> dict[str, Any]:
    """How often something is claimed of two random halves of one text, by what."""
    from collapse_cli.check.documents import of_rows
    from collapse_cli.check.side_by_side import examine
    from collapse_cli.findings.check import compared

    rows = [json.loads(line)["text"] for line in (work / "real.jsonl").read_text(encoding="utf-8").splitlines()]
    counts: Counter[str] = Counter()
    for turn in range(times):
        order = np.random.default_rng(turn).permutation(len(rows))
        halves = [
            of_rows([rows[at] for at in part], name, name, ())
            for name, part in (("the real text", order[::2]), ("the synthetic text", order[1::2]))
        ]
        record = json.loads(json.dumps(examine(halves[0], halves[1], None, seed=turn)))
        said = compared(record)
        telling = record["telling"]
        counts["told apart (the interval is above 0.5)"] += telling["low"] > 0.5
        counts["the interval of the AUC lacks 0.5"] += not telling["low"] <= 0.5 <= telling["high"]
        counts["cannot be told apart"] += telling["high"] <= 0.55 and telling["low"] <= 0.5
        counts["a phrase is missing"] += (
            record["missing"]["of_real"]["count"] + record["missing"]["of_synthetic"]["count"] > 0
        )
        differing = [
            one for one in record["measures"] if not one["difference"]["low"] <= 0 <= one["difference"]["high"]
        ]
        counts["a measure differs"] += bool(differing)
        counts["anything of these"] += (
            telling["low"] > 0.5
            or bool(differing)
            or record["missing"]["of_real"]["count"] + record["missing"]["of_synthetic"]["count"] > 0
        )
        counts["a sentence that something is bad"] += any(remark.tone == "bad" for remark in said.remarks)
    return {"times": times, "rows": len(rows) // 2, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("texts", "run", "page", "false-alarms"))
    parser.add_argument("--world", type=Path, default=ROOT / "runs" / "world")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--case", choices=tuple(CASES))
    parser.add_argument("--times", type=int, default=200)
    given = parser.parse_args()
    if given.what == "texts":
        texts(given.world, given.work)
    elif given.what == "run":
        for case in [given.case] if given.case else CASES:
            print(case, json.dumps(run(given.work, case)["trained"]), flush=True)
    elif given.what == "page":
        print(page(given.work))
    else:
        print(json.dumps(false_alarms(given.work, given.times), indent=1))


if __name__ == "__main__":
    main()

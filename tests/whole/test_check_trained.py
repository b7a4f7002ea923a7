"""`collapse check` with training, small: what it says where the answer is known, and killed and gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import e2e
from support.checked_texts import shuffled, world, write

SMALL = ("--jobs", "1", "--set", "train.steps=60", "--set", "train.batch_size=16", "--set", "data.block_size=32",
         "--set", "mixture.share=[0.0,1.0]", "--set", "model.vocab_size=400", "--set", "mixture.added_rows=[300]")  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("check")
    write(home / "real.jsonl", world())
    write(home / "shuffled.jsonl", shuffled(world()))
    return home


def command(home: Path, synthetic: str, name: str, *more: str) -> list[str]:
    texts = [str(home / "real.jsonl"), str(home / f"{synthetic}.jsonl")]
    return ["check", *texts, "--name", name, *SMALL, *more, "--runs-dir", str(home / "runs")]


@pytest.fixture(scope="module")
def hurting(home: Path) -> tuple[e2e.Result, dict[str, Any]]:
    done = e2e.collapse(*command(home, "shuffled", "hurting", "--json"))
    assert done.code == 0, done.err
    return done, json.loads(done.out)


def test_shuffled_words_hurt_at_every_share(home: Path, hurting: tuple[e2e.Result, dict[str, Any]]) -> None:
    done, record = hurting
    told = {effect["amount"]: effect["told"] for effect in record["trained"]["replaced"]}
    assert told == {0.0: 0, 1.0: 1}
    assert record["trained"]["best"] == [0.0]
    assert "hurts at every share that was tried" in record["remarks"][0]["text"]
    assert "9 models to train, 60 steps each: about" in done.err, "time is said before it starts"


def test_its_page_opens_with_the_verdict_and_its_chart(home: Path, hurting: object) -> None:
    page = (home / "runs" / "hurting" / "report.html").read_text(encoding="utf-8")
    header = page[page.index("<header>") : page.index("</header>")]
    assert "hurts at every share that was tried" in header
    assert 'data-figure="shares_0"' in page
    assert "times real text alone" in page
    assert e2e.collapse("report", "--md", "hurting", "--runs-dir", str(home / "runs")).code == 0
    assert "hurts at every share" in (home / "runs" / "hurting" / "report.md").read_text(encoding="utf-8")


def test_no_test_row_is_trained_on(home: Path, hurting: tuple[e2e.Result, dict[str, Any]]) -> None:
    texts = home / "runs" / "hurting" / "texts"
    read = {
        name: {row["text"] for row in e2e.read_lines(texts / name)}
        for name in ("real/train.jsonl", "real/test.jsonl", "synthetic.jsonl")
    }
    assert read["real/test.jsonl"]
    assert not read["real/test.jsonl"] & (read["real/train.jsonl"] | read["synthetic.jsonl"])
    assert hurting[1]["checked"]["training"]["left_out"][0] >= len(read["real/test.jsonl"])


@pytest.mark.slow
def test_the_real_text_itself_neither_helps_nor_hurts(home: Path) -> None:
    write(home / "itself.jsonl", world())
    done = e2e.collapse(*command(home, "itself", "itself", "--json"))
    record = json.loads(done.out)
    assert [effect["told"] for effect in (*record["trained"]["replaced"], *record["trained"]["added"])] == [0] * 4
    assert record["trained"]["best"] == [0.0, 1.0]
    assert not [remark for remark in record["remarks"] if remark["tone"] == "bad" and "hurt" in remark["text"]]


@pytest.mark.slow
def test_killed_it_goes_on_and_says_the_same(home: Path) -> None:
    """With stores of their own, or all models would be there."""
    fewer = [
        word.replace("train.steps=60", "train.steps=12") for word in command(home, "shuffled", "check", "--seeds", "0")
    ]

    def job(store: str) -> dict[str, Any]:
        return {"argv": [*fewer[:-1], str(home / store)]}

    strike = e2e.strike("train", 3, when="published")
    assert e2e.drive(job("calm"), job("killed") | {"strike": strike}, job("killed")) == [[0], [-9], [0]]
    calm, killed = (e2e.read_lines(home / store / "check" / "metrics.jsonl") for store in ("calm", "killed"))
    assert [(row["policy"], row["nll"]) for row in calm] == [(row["policy"], row["nll"]) for row in killed]
    assert len(calm) == 3


def test_once_more_computes_nothing_and_other_settings_are_refused(home: Path, hurting: object) -> None:
    before = (home / "runs" / "hurting" / "metrics.jsonl").read_bytes()
    again = e2e.collapse(*command(home, "shuffled", "hurting"))
    assert again.code == 0
    assert "models to train" not in again.err + again.out
    assert (home / "runs" / "hurting" / "metrics.jsonl").read_bytes() == before
    other = e2e.collapse(*command(home, "shuffled", "hurting", "--set", "train.lr=0.1"))
    assert other.code == 2
    assert "train.lr" in other.err


def test_a_quick_check_can_be_gone_on_with(home: Path) -> None:
    texts = [str(home / "real.jsonl"), str(home / "shuffled.jsonl")]
    assert e2e.collapse("check", *texts, "--name", "first-quick", "--quick", "--runs-dir", str(home / "runs")).code == 0
    done = e2e.collapse(*command(home, "shuffled", "first-quick", "--seeds", "0"))
    assert done.code == 0, done.err
    assert "One seed allows no verdict" in " ".join(done.out.split())
    assert e2e.collapse("list", "--runs-dir", str(home / "runs")).code == 0


def test_a_dry_run_says_what_it_will_cost_and_leaves_nothing(home: Path) -> None:
    done = e2e.collapse(*command(home, "shuffled", "dry", "--dry-run", "--json", "--seeds", "5"))
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["seconds"] > 0
    assert plan["measured"]
    assert plan["timed"] > 0
    assert not any(kind["guessed"] for kind in plan["kinds"].values()), (
        "all is reckoned from the trainings that were tried"
    )
    assert not (home / "runs" / "dry").exists()

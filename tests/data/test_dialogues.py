"""Chats and pairs: found by their columns, in every format, and what is passed over is said."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from collapse_cli.data.dataset import Text, load_text
from collapse_cli.data.dialogues import Dialogue, Turn, answers, as_bytes
from collapse_cli.errors import InputError

HI = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TURNS = (Turn("user", "hi"), Turn("assistant", "hello"))


def read(source: Path, **asked: str) -> Text:
    load_text.cache_clear()  # as in a new process
    return load_text(str(source), **asked)


def refused(source: Path, **asked: str) -> str:
    with pytest.raises(InputError) as error:
        read(source, **asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def rows_of(text: Text) -> list[str]:
    return [row for split in text.splits.values() for row in split]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(count: int = 10) -> list[dict[str, str]]:
    return [{"prompt": f"what is {number}?", "completion": f"a number, {number}"} for number in range(count)]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": HI},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"prompt": HI[:1], "completion": HI[1:]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, HI[1]], "id": 3},
        {"prompt": "hi", "prompt_id": "x", "messages": [*HI, {"role": "user", "content": "bye"}]},
    ],
)
def test_chats_are_found_by_their_columns(tmp_path: Path, row: dict[str, Any]) -> None:
    rows = rows_of(read(jsonl(tmp_path / "chat.jsonl", [row] * 10)))
    assert {row.turns for row in rows if isinstance(row, Dialogue)} == {TURNS}
    assert set(rows) == {"hi\nhello\n"}
    assert not any(row.pair for row in rows if isinstance(row, Dialogue))
    assert set(answers(rows)) == {"hello\n"}


@pytest.mark.parametrize("names", [("prompt", "completion"), ("instruction", "output"), ("question", "answer")])
@pytest.mark.parametrize("ending", ["jsonl", "json.gz", "csv", "tsv", "parquet", "saved", "jsonl.zst"])
def test_pairs_are_found_by_their_columns_in_every_format(tmp_path: Path, names: tuple[str, str], ending: str) -> None:
    odd = 'a,b\t"c"\nnext line'
    rows = [{"id": number, names[0]: f"what is {number}?", names[1]: odd} for number in range(10)]
    path = tmp_path / f"corpus.{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if ending in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", *names], delimiter="," if ending == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "json.gz":
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    elif ending == "jsonl.zst":
        import zstandard

        both = lines.splitlines(keepends=True)  # two frames, as when files were joined
        path.write_bytes(b"".join(zstandard.compress("".join(part).encode()) for part in (both[:4], both[4:])))
    elif ending == "jsonl":
        path.write_text(lines)
    else:
        import datasets

        table = datasets.Dataset.from_list(rows)
        datasets.disable_progress_bars()
        table.to_parquet(path) if ending == "parquet" else table.save_to_disk(path)
    made = [row for row in rows_of(read(path)) if isinstance(row, Dialogue)]
    assert [row.turns for row in made] == [
        (Turn("user", f"what is {number}?"), Turn("assistant", odd)) for number in range(10)
    ]
    assert all(row.pair for row in made)


def test_an_input_belongs_to_its_instruction_and_columns_can_be_named(tmp_path: Path) -> None:
    rows = [
        {"instruction": "add", "input": "1 and 2", "output": "3"},
        {"instruction": "say hi", "input": "", "output": "hi"},
        {"instruction": "say ho", "output": "ho"},
    ] * 4
    made = rows_of(read(jsonl(tmp_path / "alpaca.jsonl", rows)))
    assert made[:3] == ["add\n\n1 and 2\n3\n", "say hi\nhi\n", "say ho\nho\n"]
    named = read(
        jsonl(tmp_path / "own.jsonl", [{"frage": "was?", "antwort": "das"}] * 10), prompt="frage", completion="antwort"
    )
    assert set(rows_of(named)) == {"was?\ndas\n"}
    chats = read(jsonl(tmp_path / "other.jsonl", [{"talk": HI, "text": "x"}] * 10), column="talk", form="chat")
    assert {row.turns for row in rows_of(chats) if isinstance(row, Dialogue)} == {TURNS}


def test_a_column_called_text_stays_the_text_and_what_else_is_there_is_said(tmp_path: Path) -> None:
    text = read(jsonl(tmp_path / "both.jsonl", [{"text": "a", "messages": HI}] * 10))
    assert set(rows_of(text)) == {"a\n"}
    assert not any(isinstance(row, Dialogue) for row in rows_of(text))
    assert any(
        "though there are chats (the column messages); for those, say data.format" in note for note in text.notes
    )


def test_saved_folders_have_splits_and_columns(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    splits = {
        name: datasets.Dataset.from_dict({"body": [f"{name} {n}" for n in range(5)]})
        for name in ("train", "validation", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    text = read(tmp_path / "saved", column="body")
    assert text.splits["valid"] == tuple(f"validation {n}\n" for n in range(5))
    assert read(tmp_path / "saved", column="body", train="validation").splits["train"] == text.splits["valid"]
    assert "no split 'more' (there: train, validation, test)" in refused(
        tmp_path / "saved", column="body", train="more"
    )
    assert "no column 'text' (there: body)" in refused(tmp_path / "saved")
    (tmp_path / "saved" / "train" / "state.json").write_text("{")
    assert "cannot be read" in refused(tmp_path / "saved", column="body")


def test_what_is_passed_over_is_counted_with_an_example(tmp_path: Path) -> None:
    odd = [
        {"messages": HI[:1]},
        {"messages": []},
        {"messages": None},
        {"messages": [HI[0], {"role": "assistant", "content": " "}]},
        {"messages": [HI[0], {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
        {"messages": [*HI, {"role": "tool", "content": "7"}, *HI]},
        {"messages": [{"role": "narrator", "content": "once"}, *HI]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, HI[1]]},
    ]
    late = {"messages": [*HI, HI[0]]}
    text = read(jsonl(tmp_path / "chat.jsonl", [{"messages": HI}] * 9 + odd + [late]))
    assert len(rows_of(text)) == 10
    (passed,) = [note for note in text.notes if "passed over" in note]
    assert passed == (
        "chat.jsonl: rows passed over, of 18: 2 without a message (the first: chat.jsonl, line 11); 2 with calls of tools, or "
        "their answers (the first: chat.jsonl, line 14); 1 without a turn of the assistant (the first: chat.jsonl, line 10)"
        "; 1 with an empty turn of the assistant (the first: chat.jsonl, line 13); 1 with roles that are not known "
        "('narrator') (the first: chat.jsonl, line 16); 1 with images, sounds or the like in their contents (the first: "
        "chat.jsonl, line 17)"
    )
    assert any("go on after the assistant's last turn: 1 of 10" in note for note in text.notes)


def test_what_nothing_is_made_of_is_said(tmp_path: Path) -> None:
    asked, said = HI
    rows: list[Any] = [
        {"messages": [asked, {**said, "reasoning_content": "let me see", "weight": 1, "train": None, "masked": False}], "system": "be brief"},
        {"messages": [{**asked, "weight": 0}, {**said, "weight": 0}, asked, {**said, "mask": True}]},
        *[{"messages": HI}] * 8,
    ]  # fmt: skip
    text = read(jsonl(tmp_path / "chat.jsonl", rows))
    assert [note for note in text.notes if "nothing is made" in note] == [
        "chat.jsonl: nothing is made of the columns system: models see and learn what is in chats (the column messages) alone",
        "chat.jsonl: nothing is made of what messages say besides role and content: mask (in 1 of 10 rows), "
        "reasoning_content (in 1 of 10 rows), weight (in 1 of 10 rows); every turn of the assistant is learned, as it stands in its content",
    ]
    alpaca = jsonl(tmp_path / "alpaca.jsonl", [{"instruction": "add", "input": "1 and 2", "output": "3"}] * 10)
    assert not any("nothing is made" in note for note in read(alpaca).notes)
    named = read(alpaca, prompt="instruction", completion="output").notes
    assert any("nothing is made of the columns input" in note for note in named), (
        "named columns are those that are named"
    )


def test_messages_of_two_kinds_in_one_table_are_told_apart_by_what_is_not_null(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    pq.write_table(pa.Table.from_pylist([{"messages": HI}, {"messages": own}] * 5), tmp_path / "two.parquet")
    assert {row.turns for row in rows_of(read(tmp_path / "two.parquet")) if isinstance(row, Dialogue)} == {TURNS}


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        (
            [{"messages": HI, "prompt": "a", "completion": "b"}],
            {},
            "read as chats (the column messages) or as pairs of prompt and completion",
        ),
        (
            [{"prompt": "a", "completion": "b", "instruction": "c", "output": "d"}],
            {},
            "say --set data.prompt=… data.completion=…",
        ),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], {}, "no column 'text' (there: prompt, chosen, rejected)"),
        ([{"prompt": "a", "chosen": "b"}], {"form": "pairs"}, "no pair of columns that is known"),
        (
            [{"prompt": "a", "chosen": "b"}],
            {"form": "pairs", "prompt": "prompt", "completion": "best"},
            "no column 'best' (there: prompt, chosen)",
        ),
        ([{"a": HI}], {"form": "chat"}, "no column of chats (there: a)"),
        ([{"a": HI}], {"form": "chat", "column": "b"}, "no column 'b' (there: a)"),
        (
            [{"a": HI}],
            {"column": "a"},
            "'a' is a list, not text; write it as a string; for a list of messages, say --set data.format=chat",
        ),
        ([{"messages": "hi"}], {}, "line 1: messages: the messages are no list of objects"),
        ([{"messages": "[hi"}], {}, "the messages are no JSON"),
        ([{"messages": [1]}], {}, "message 1: this is no object"),
        (
            [{"messages": [{"text": "hi"}]}],
            {},
            "message 1: it says neither role and content nor from and value (there: text)",
        ),
        ([{"messages": [{"role": 1, "content": "hi"}]}], {}, "the role is no word"),
        ([{"messages": [{"role": None, "from": None}]}], {}, "the role is no word"),
        (
            [{"messages": [HI[0], {"role": "assistant", "content": 7}]}],
            {},
            "message 2: the content is a number, not text",
        ),
        ([{"messages": [HI[0], {"role": "assistant", "content": "\ud83d"}]}], {}, "half a character"),
        ([{"messages": HI}, {"other": HI}], {}, "line 2 has no column 'messages' (there: other)"),
        ([{"messages": HI}, 7], {}, "line 2: this is no object"),
        ([{"prompt": "a", "completion": 1}], {}, "line 1: the completion is a number, not text"),
        (
            [{"prompt": None, "completion": "b"}],
            {},
            "none of 1 row has a prompt and an answer: 1 without a prompt (null)",
        ),
        (
            [{"messages": HI[:1]}] * 3,
            {},
            "none of 3 rows has a prompt and an answer: 3 without a turn of the assistant",
        ),
        ([{"messages": HI}], {}, "with 1 row there is too little to put some aside"),
    ],
)
def test_bad_chats_and_pairs_are_one_line(tmp_path: Path, rows: list[Any], asked: dict[str, str], said: str) -> None:
    assert said in refused(jsonl(tmp_path / "data.jsonl", rows), **asked)


def test_a_name_that_stands_in_a_message_twice_is_refused(tmp_path: Path) -> None:
    message = '{"role": "assistant", "content": "b", "content": "c"}'
    (tmp_path / "data.jsonl").write_text(f'{{"messages": [{json.dumps(HI[0])}, {message}]}}\n' * 10)
    assert "line 1: 'content' stands in a message more than once" in refused(tmp_path / "data.jsonl")


def test_plain_text_holds_no_chats_and_kinds_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n" * 20)
    assert "is plain text, without columns; chats and pairs are read from files of .jsonl" in refused(
        tmp_path, form="chat"
    )
    jsonl(tmp_path / "test.jsonl", pairs())
    assert (
        "test.jsonl: rows here are pairs of prompt and completion (the columns prompt, completion), and elsewhere texts"
        in refused(tmp_path)
    )


def test_hashes_tell_roles_contents_and_kinds_apart(tmp_path: Path) -> None:
    def hashed(row: dict[str, Any], **asked: str) -> str:
        return read(jsonl(tmp_path / "data.jsonl", [row] * 10), **asked).sha256

    def said(*contents: str) -> dict[str, Any]:
        roles = ("system", "user", "assistant")[-len(contents) :]
        return {"messages": [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]}

    rows = [said("a", "b"), said("a\nb"), said("ab", ""), said("a", "b", "c"), said("a\nb", "c"), said("a", "b\nc")]
    rows = [row for row in rows if row["messages"][-1]["content"]]
    hashes = [*map(hashed, rows), hashed({"prompt": "a", "completion": "b"}), hashed({"text": "a\nb"})]
    hashes += [hashed({"text": as_bytes(Dialogue(TURNS)).decode()[1:]}), hashed({"messages": HI})]
    assert len(set(hashes)) == len(hashes)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_nested_folders_are_walked_where_the_folder_itself_has_no_training_text(tmp_path: Path) -> None:
    for place in (
        "train/a/part-2.txt",
        "train/a/part-10.txt",
        "train/b/x.txt",
        "dev/x.txt",
        ".git/train.txt",
        "test.txt",
    ):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{place}\n")
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    (tmp_path / "README.md").write_text("about\n")
    text = read(tmp_path)
    assert text.splits["train"] == ("train/a/part-2.txt\n", "train/a/part-10.txt\n", "train/b/x.txt\n")
    assert text.splits["valid"] == ("dev/x.txt\n",)
    assert text.splits["test"] == ("test.txt\n",)
    assert [note.split(": ", 1)[1] for note in text.notes] == [
        "hidden folders: .git",
        "folders that are read already, by links: train/again",
    ]
    (tmp_path / "train.txt").write_text("own\n")  # which settles it: nothing else is looked through
    text = read(tmp_path)
    assert text.splits["train"] == ("own\n",)
    assert any("folders with text in them (only the folder itself is read): .git, dev" in note for note in text.notes)


def test_a_folder_of_documents_is_read_whole_where_it_is_named(tmp_path: Path) -> None:
    for place in ("guide/start.md", "guide/more/end.md", "test.md", "notes.md"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"{place}\n")
    said = refused(tmp_path)
    assert "which file is the training text? (guide/more/end.md, guide/start.md, notes.md and 1 more)" in said
    assert "or . for all that is here" in said
    assert read(tmp_path, train=".").splits["train"] == ("guide/more/end.md\n", "guide/start.md\n", "notes.md\n")
    assert read(tmp_path, train="guide").splits["train"] == ("guide/more/end.md\n", "guide/start.md\n")
    assert read(tmp_path, train="guide", test="notes.md").splits["test"] == ("notes.md\n",)


def test_shards_without_a_split_in_their_names_are_one_text_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        jsonl(tmp_path / f"part-{number}.jsonl", [{"prompt": "p", "completion": f"{number}.{n}"} for n in range(4)])
    assert [row.split("\n")[1] for row in rows_of(read(tmp_path))] == [f"{k}.{n}" for k in (1, 2, 10) for n in range(4)]


def test_tabs_part_cells_of_tsv_and_what_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttext\n1\ta, b\n2\tc\n" * 1 + "".join(f"{n}\trow {n}\n" for n in range(20)))
    assert rows_of(read(tmp_path / "a.tsv"))[:2] == ["a, b\n", "c\n"]
    (tmp_path / "b.tsv").write_text("id\ttext\n1\ta\tb\n")
    assert "line 2: 3 cells, where the first line names 2 columns; put text with tabs" in refused(tmp_path / "b.tsv")
    (tmp_path / "c.tsv").write_text("id,text\n1,a\n")
    assert "the first line has commas in it" in refused(tmp_path / "c.tsv")
    (tmp_path / "d.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00")
    assert "cannot be unpacked" in refused(tmp_path / "d.txt.zst")
    import zstandard

    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0\1\2\3\4"  # as pzstd writes one before each of its frames
    frames = b"".join(skipped + zstandard.compress(f"line {number}\n".encode()) for number in range(10))
    (tmp_path / "f.txt.zst").write_bytes(frames)
    assert rows_of(read(tmp_path / "f.txt.zst")) == [f"line {number}\n" for number in range(10)]
    (tmp_path / "e.txt.zst").write_bytes(b"text")
    assert "is not compressed with zstd, whatever its name says" in refused(tmp_path / "e.txt.zst")

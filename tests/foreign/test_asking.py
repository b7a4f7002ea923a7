"""Asking a real server for completions: what comes back, what is kept, and a clear line for whatever goes wrong."""

import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import served as serving
from support.served import Proxy, Served
from support.waiting import PATIENCE

from collapse_cli.data.dialogues import Turn
from collapse_cli.errors import InputError
from collapse_cli.foreign.answers import Answer, KeptAnswers, line_of
from collapse_cli.foreign.asking import Connection, Question, answers, reach, shown

KEY = "COLLAPSE_SERVER_KEY"
PROMPTS = [f"the old dog sees {number}" for number in range(6)]


@pytest.fixture
def proxy(server: Served) -> Iterator[Proxy]:
    with serving.proxy(server) as one:
        yield one


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):  # of another account: they must go nowhere
        monkeypatch.setenv(name, "of-another-account")


def line_to(proxy: Proxy, **changes: object) -> Connection:
    line = Connection(proxy.address, str(proxy.behind.model), True, at_once=3, timeout=PATIENCE, retries=2, key=KEY)
    return replace(line, **changes)  # type: ignore[arg-type]


def ask(
    line: Connection,
    scratch: Path,
    prompts: list[str] = PROMPTS,
    *,
    chat: bool = False,
    most: int = 6,
    temperature: float = 1.0,
) -> list[Answer]:
    scratch.mkdir(exist_ok=True)
    asked = Question(line.model or line.address, chat, most, temperature, 1.0)
    return answers(asked, line, prompts, list(range(len(prompts))), scratch, lambda done, total, unit: None)


def refused(line: Connection, scratch: Path, *words: str, chat: bool = False) -> str:
    """The one line that asking ends in."""
    with pytest.raises(InputError) as raised:
        ask(line, scratch, chat=chat)
    said = str(raised.value)
    assert "\n" not in said
    for word in words:
        assert word in said, said
    return said


def test_each_prompt_has_its_answer_and_none_is_asked_twice(proxy: Proxy, tmp_path: Path) -> None:
    first = ask(line_to(proxy), tmp_path / "a")
    assert len(first) == len(PROMPTS) == len(proxy.seen)
    assert all(answer.text and answer.tokens for answer in first)
    assert {answer.model for answer in first} == {f"{proxy.behind.model}@main"}, "what the server reports"
    assert len({answer.text for answer in first}) > 1
    assert ask(line_to(proxy), tmp_path / "a") == first
    assert len(proxy.seen) == len(PROMPTS), "answers that are kept were asked for again"
    bodies = {body["prompt"]: body for _, body in proxy.seen}
    assert sorted(bodies) == sorted(PROMPTS)
    assert bodies[PROMPTS[3]] == {"model": str(proxy.behind.model), "prompt": PROMPTS[3], "max_tokens": 6,
                                  "temperature": 1.0, "top_p": 1.0, "seed": 3}  # fmt: skip


def test_nothing_is_sent_but_what_is_asked(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would add an account of the user's at another service, and what machine this is."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing goes through a proxy to this machine itself
    ask(line_to(proxy), tmp_path / "a", PROMPTS[:1])
    headers, _ = proxy.seen[0]
    assert "of-another-account" not in str(headers)
    assert {name.lower() for name in headers} <= {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type",
    }  # fmt: skip


def test_answers_at_temperature_0_are_the_models_own_choice(proxy: Proxy, tmp_path: Path) -> None:
    """What is asked for is what the server does: against transformers' own greedy search on the same model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(proxy.behind.model)
    tokenizer = AutoTokenizer.from_pretrained(proxy.behind.model)
    ids = tokenizer(PROMPTS[0], return_tensors="pt")
    whole = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    (answer,) = ask(line_to(proxy), tmp_path / "a", PROMPTS[:1], temperature=0.0)
    assert answer.text == tokenizer.decode(whole, skip_special_tokens=True)


def test_chats_are_asked_where_that_is_wanted(proxy: Proxy, tmp_path: Path) -> None:
    proxy.always = serving.says(
        200, json.dumps({"model": "m", "choices": [{"message": {"content": "Hello."}}]}).encode()
    )
    assert [answer.text for answer in ask(line_to(proxy), tmp_path / "a", chat=True)] == ["Hello."] * 6
    assert proxy.seen[0][1]["messages"] == [{"role": "user", "content": PROMPTS[0]}]
    refused(line_to(proxy), tmp_path / "b", "holds no completion", "foreign.chat")


def test_turns_are_sent_as_they_are_and_those_of_other_roles_are_asked_apart(proxy: Proxy, tmp_path: Path) -> None:
    """What user and assistant say reads the same as a text here, and is another question each time."""
    proxy.always = serving.says(200, b'{"choices": [{"message": {"content": "Hello."}}]}')
    talks = [[Turn("system", "Be\nkind. "), Turn("user", "who?")], [Turn("user", "Be\nkind. "), Turn("user", "who?")],
             [Turn("user", "Be\nkind. \nwho?")], [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "<|im_end|>\u00e9")]]  # fmt: skip
    line = line_to(proxy, at_once=1)
    asked = Question(line.model, True, 6, 1.0, 1.0)
    for _ in range(2):  # what was answered is not asked for again
        made = answers(asked, line, talks, [0] * 4, tmp_path, lambda done, total, unit: None)
        assert [answer.text for answer in made] == ["Hello."] * 4
        assert [[(turn["role"], turn["content"]) for turn in body["messages"]] for _, body in proxy.seen] == [
            [(turn.role, turn.content) for turn in talk] for talk in talks
        ]
    answers(asked, line, ["Be\nkind. \nwho?"], [0], tmp_path, lambda done, total, unit: None)
    assert len(proxy.seen) == 4, "a text that a user says, and a dialogue of that turn alone, are one request"
    assert {key: value for key, value in proxy.seen[0][1].items() if key != "messages"} == {
        "model": line.model, "max_tokens": 6, "temperature": 1.0, "top_p": 1.0, "seed": 0,
    }  # fmt: skip


def test_the_only_model_of_a_server_need_not_be_named(proxy: Proxy, tmp_path: Path) -> None:
    one = json.dumps({"object": "list", "data": [{"id": str(proxy.behind.model), "object": "model"}]}).encode()
    proxy.listing = serving.says(200, one)
    assert ask(line_to(proxy, model=""), tmp_path / "a", PROMPTS[:2])[0].text
    two = json.dumps({"data": [{"id": "first"}, {"id": "second\u001b[31m"}]}).encode()
    proxy.listing = serving.says(200, two)
    refused(line_to(proxy, model=""), tmp_path / "b", "which model? (it has first, second [31m)", "#MODEL")


# --- what goes wrong and mends itself ---------------------------------------------------------------------------------


def test_limits_errors_and_lost_connections_are_tried_again(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.faults = [serving.says(429, b"{}", retry_after="0.3"), None, serving.says(503, b"{}"), serving.cuts]
    began = time.monotonic()
    made = ask(line_to(proxy), tmp_path / "a")
    assert all(answer.text for answer in made)
    assert len(proxy.seen) == len(PROMPTS) + 3
    assert time.monotonic() - began > 0.3, "the server said how long to wait"
    assert "limits how often it can be asked" in caplog.text


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_wrong_name_of_a_model_is_said_in_the_servers_words(proxy: Proxy, tmp_path: Path) -> None:
    refused(
        line_to(proxy, model="no-such-model"),
        tmp_path / "a",
        "refuses the request: status 400",
        "no-such-model",
        "is the model",
    )


def test_a_dead_server_is_said(proxy: Proxy, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{serving.free_port()}/v1"
    refused(
        line_to(proxy, address=nobody, retries=0),
        tmp_path / "a",
        "cannot be reached",
        "Connection refused",
        "is the server running?",
    )


def test_a_key_comes_from_the_environment_and_is_shown_nowhere(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.always = serving.needs_key("sk-secret-of-mine")
    refused(line_to(proxy), tmp_path / "a", "refuses a request without a key", KEY)
    monkeypatch.setenv(KEY, "sk-wrong-one")
    assert "sk-wrong-one" not in refused(line_to(proxy), tmp_path / "b", f"refuses the key in {KEY}: status 401")
    assert len(proxy.seen) == 2, "a refused key is not tried again"
    monkeypatch.setenv(KEY, "sk-secret-of-mine")
    ask(line_to(proxy), tmp_path / "c", PROMPTS[:2])
    assert "sk-" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    proxy.always = serving.says(400, b'{"error": {"message": "the key sk-secret-of-mine has no credit"}}')
    refused(line_to(proxy), tmp_path / "d", "the key … has no credit")
    monkeypatch.setenv(KEY, "sk-with a line\nend")
    refused(line_to(proxy), tmp_path / "e", f"the environment variable {KEY} holds signs")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (serving.says(302, b"", location="http://127.0.0.1:1/elsewhere"), "sends its askers on to http://127.0.0.1:1/elsewhere"),
        (serving.says(404, b"<html>", "text/html"), "has no completions there (status 404); does the address end as it should (/v1)?"),
        (serving.says(429, b"{}", retry_after="3600"), "wants to be asked again after 3600 seconds"),
        (serving.says(500, b'{"detail": "out of memory\\u001b[2J"}'), "has an error of its own, 2 times running: status 500 (out of memory [2J)"),
        (serving.says(200, b"<html>hello</html>", "text/html"), "answers with something that is not JSON ('<html>hello</html>')"),
        (serving.says(200, b'{"choices": [{"text": "\xff\xfe"}]}'), "not UTF-8"),
        (serving.says(200, b'{"choices": []}'), "holds no completion"),
        (serving.says(200, b'{"error": {"message": "the provider is overloaded", "code": 502}}'), "an error of its own, which it says is none: the provider is overloaded"),
        (serving.says(200, b'{"choices": [{"text": "a b", "finish_reason": "error", "error": {"message": "lost"}}]}'), "broke off an answer (lost)"),
        (serving.says(200, serving.completion("a b", "abort")), "broke off an answer ('abort')"),
        (serving.says(200, b"[" * 100_000), "not JSON"),
        (serving.says(200, serving.completion("a b", "length", usage={"completion_tokens": 2})), "cuts its answers after 2 tokens of the 6"),
        (serving.says(200, serving.completion("")), "6 of 6 answers of the model"),
        (serving.says(200, serving.completion("not for you", "content_filter")), "are empty"),
        (serving.cuts, "cannot be reached, or ends its answers early"),
        (serving.hangs, "does not answer within 0.5 seconds"),
        (serving.goes_on(0.05, 10), "does not answer within 0.5 seconds"),
        (serving.goes_on(0.0, 1 << 20), "more than 16 MB"),
        (serving.says(200, gzip.compress(b" " * (1 << 24)), content_encoding="gzip"), "packed with gzip, which was not asked for"),
        (serving.says(400, b"\xff", "text/plain; charset=rot13"), "refuses the request: status 400"),
    ],
)  # fmt: skip
def test_whatever_a_server_does_wrong_is_one_line(
    proxy: Proxy, tmp_path: Path, fault: serving.Fault, said: str
) -> None:
    proxy.always = fault
    timeout = 0.5 if "within 0.5 seconds" in said else PATIENCE
    refused(line_to(proxy, timeout=timeout, retries=1), tmp_path / "a", said)
    assert KeptAnswers(tmp_path / "a/answers.jsonl")._answers == {}, "nothing of it is kept"


def test_headers_without_an_end_are_waited_for_no_longer_than_an_answer(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits for each part by itself, of which there is always another one."""
    monkeypatch.setattr("collapse_cli.foreign.asking.GRACE", 0.2)
    proxy.always = serving.never_begins
    refused(line_to(proxy, timeout=0.5), tmp_path / "a", "does not answer within 0.5 seconds")


def test_a_server_is_looked_for_before_it_is_asked(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers at all is a server, whatever it says; which model is meant must be clear."""
    monkeypatch.setattr("collapse_cli.foreign.asking.GRACE", 0.3)
    for listing in (
        None,
        serving.says(500),
        serving.says(401, b"{}"),
        serving.cuts,
        serving.hangs,
        serving.never_begins,
    ):
        proxy.listing = listing
        reach(line_to(proxy, retries=0))
    proxy.listing = serving.says(200, b'{"data": [{"id": "a"}, {"id": "b"}]}')
    reach(line_to(proxy, retries=0))
    with pytest.raises(InputError, match=r"which model\? \(it has a, b\)"):
        reach(line_to(proxy, model=""))
    gone = f"http://127.0.0.1:{serving.free_port()}/v1"
    with pytest.raises(InputError, match=f"{gone} cannot be reached.*is the server running"):
        reach(line_to(proxy, address=gone))
    assert not proxy.seen, "a completion was asked for"


def test_a_list_of_models_that_cannot_be_read_is_none(proxy: Proxy, tmp_path: Path) -> None:
    proxy.listing = serving.says(200, b"[" * 100_000)
    refused(line_to(proxy, model=""), tmp_path / "a", "which model? (it does not say which it has)")


@pytest.mark.parametrize("count", ["true", "-5", "9" * 400])
def test_a_count_of_tokens_that_is_none_is_not_taken_for_one(proxy: Proxy, tmp_path: Path, count: str) -> None:
    content = serving.completion("a b", "length").replace(
        b'"model"', f'"usage": {{"completion_tokens": {count}}}, "model"'.encode()
    )
    proxy.always = serving.says(200, content)
    assert ask(line_to(proxy), tmp_path / "a", PROMPTS[:1]) == [Answer("a b", "m")]


def test_a_server_that_was_started_again_with_another_model_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers that are kept and those that come are of two models; no name of a model tells that but what the server says."""
    with serving.proxy(Served(tmp_path / "none")) as alone:  # all is said in place of a server
        for model, prompts in (("first", PROMPTS[:4]), ("second\x1b[31m", PROMPTS)):
            assert "several models" not in caplog.text
            content = serving.completion("a b").replace(b'"m"', json.dumps(model).encode())
            alone.always = serving.says(200, content)
            ask(line_to(alone), tmp_path / "a", prompts)
    said = "several models answered (first: 4 answers; second [31m: 2 answers); rows of all of them are taken"
    assert said in caplog.text


def test_a_few_empty_answers_are_put_up_with_and_said(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.faults = [serving.says(200, serving.completion(None))]
    made = ask(line_to(proxy), tmp_path / "a", [f"prompt {number}" for number in range(11)])
    assert [answer.text == "" for answer in made].count(True) == 1
    assert "1 of 11 answers are empty" in caplog.text


@pytest.mark.parametrize(("reason", "ended"), [("stop", True), ("eos_token", True), ("length", False), (None, False)])
def test_an_answer_ended_where_the_server_says_so_in_any_of_their_words(
    proxy: Proxy, tmp_path: Path, reason: str | None, ended: bool
) -> None:
    proxy.always = serving.says(200, serving.completion("a b", reason))
    (answer,) = ask(line_to(proxy), tmp_path / "a", PROMPTS[:1])
    assert (answer.text, answer.ended) == ("a b", ended)


def test_what_a_server_writes_is_text_and_nothing_else() -> None:
    assert shown("\x1b[31mred\x07\n\n and   more\u202e") == "[31mred and more"
    assert len(shown("x" * 10_000)) == 200


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_after_a_failure_only_what_is_missing_is_asked_for(proxy: Proxy, tmp_path: Path) -> None:
    proxy.faults, proxy.always = [None] * 4, serving.says(500, b"{}")
    said = refused(line_to(proxy, at_once=1, retries=0), tmp_path / "a", "4 of 6 answers are kept")
    assert "the same command asks for the others" in said
    proxy.always, before = None, len(proxy.seen)
    made = ask(line_to(proxy), tmp_path / "a")
    assert len(proxy.seen) - before == 2
    assert made == ask(line_to(proxy), tmp_path / "b"), "as if nothing had gone wrong: each request has its seed"


def test_a_torn_or_damaged_line_is_asked_for_again(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = ask(line_to(proxy), tmp_path / "a")
    file = tmp_path / "a/answers.jsonl"
    lines = [line for line in file.read_bytes().split(b"\n") if line]
    torn, changed = lines[0][:30], lines[1].replace(b'"tokens": 6', b'"tokens": 7')
    assert changed != lines[1]
    file.write_bytes(b"\n".join([changed, *lines[2:], b"null", b"\xff\xfe", torn]))
    before = len(proxy.seen)
    assert ask(line_to(proxy), tmp_path / "a") == made
    assert len(proxy.seen) - before == 2
    assert "4 of the answers that were kept are damaged" in caplog.text


def test_an_answer_is_written_before_the_next_is_waited_for(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path / "answers.jsonl")
    kept.add("a" * 64, Answer("text"))
    assert line_of("a" * 64, Answer("text")) in (tmp_path / "answers.jsonl").read_bytes()


def test_a_server_that_dies_in_the_middle_leaves_what_it_answered(server: Served, tmp_path: Path) -> None:
    """Killed while it answers, and started again on its port."""
    many = [f"the red house {number}" for number in range(40)]
    line = Connection(server.address, str(server.model), True, at_once=2, timeout=PATIENCE, retries=0, key=KEY)

    def after_five(done: int, total: int, unit: str) -> None:
        if done == 5:
            server.kill()

    asked = Question(line.model, False, 6, 1.0, 1.0)
    with pytest.raises(InputError, match=r"ends its answers early.*running\? \d+ of 40 answers are kept"):
        answers(asked, line, many, list(range(40)), tmp_path, after_five)
    there = len(KeptAnswers(tmp_path / "answers.jsonl"))
    assert 5 <= there < 40
    server.start()
    with serving.proxy(server) as proxy:
        again = replace(line, address=proxy.address)
        made = answers(asked, again, many, list(range(40)), tmp_path, lambda done, total, unit: None)
        assert len(made) == 40
        assert len(proxy.seen) == 40 - there

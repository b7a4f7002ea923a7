"""Chat templates of others that would never end, or fill the memory: each is a line, and the process that asks is not harmed."""

import os
import signal
import time

import pytest
from support.chatting import TEMPLATES, chat_tokenizer

from collapse_cli.errors import InputError
from collapse_cli.lm import chats, template_trial

SAYS = TEMPLATES["chatml"]
DOUBLED = "{% set all = namespace(x='ab') %}{% for _ in range(60) %}{% set all.x = all.x ~ all.x %}{% endfor %}"
HOSTILE = {
    "loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + SAYS,
        "within 1 seconds of work",
    ),
    "power": ("{{ 9 ** (9 ** 9) % 2 }}" + SAYS, "within 1 seconds of work"),
    "later": ("{% if messages | length > 2 %}{{ 9 ** (9 ** 9) % 2 }}{% endif %}" + SAYS, "within 1 seconds of work"),
    "doubles": (DOUBLED + SAYS, "more than 1 GiB of memory"),
    "long": ("{{ 'a' * 2000000 }}" + SAYS, "more than 1,048,576 characters around a short dialogue"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_template_without_an_end_is_a_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template, wanted = HOSTILE[kind]
    # The others need the time that there is: to fill a gigabyte takes more than a second on some machines.
    if "seconds" in wanted:
        monkeypatch.setattr(template_trial, "SECONDS", 1)
    with pytest.raises(InputError) as raised:
        chats.ChatTemplate(tokenizer, chats.OWN)
    assert str(raised.value).startswith("the tokenizer's chat template ")
    assert wanted in str(raised.value)
    assert "--set data.template=plain" in str(raised.value)


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('no') }}", "", "{{ messages[7].content }}", "{% for", "{{ 'a' * 10 ** 30 }}"]
)
def test_one_that_refuses_or_writes_nothing_has_no_end_of_answers(source: str) -> None:
    """It is tried and let through: what it refuses, and why, is said of each dialogue, and here of any."""
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = source
    with pytest.raises(InputError, match=r"cannot write a question and its answer|has no chat template"):
        _ = chats.ChatTemplate(tokenizer, chats.OWN).end


def test_a_template_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = SAYS + "{# once #}"
    chats.ChatTemplate(tokenizer, chats.OWN)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it was tried again"))
    chats.ChatTemplate(tokenizer, chats.OWN)


def test_a_process_that_waits_for_ever_is_no_trouble_and_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that was begun while another thread held a lock: it says nothing of the template."""
    monkeypatch.setattr(template_trial, "PATIENCE", 0.5)
    begun = time.monotonic()
    assert template_trial.trouble([lambda: time.sleep(300) or "x"]) == ""  # type: ignore[func-returns-value]
    assert time.monotonic() - begun < 100


def test_a_process_that_dies_is_said() -> None:
    begun = time.monotonic()
    assert (
        template_trial.trouble([lambda: os.kill(os.getpid(), signal.SIGSEGV) or "x"])
        == "ends the process that runs it (signal 11)"
    )
    assert template_trial.trouble([lambda: "x"]) == ""
    assert time.monotonic() - begun < 60

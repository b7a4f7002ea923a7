"""An OpenAI-style server asked for completions: by the client library `openai`, so many at a time, each answer kept as it comes.

What goes wrong is a sentence for the user. What was answered before is kept, so the same command goes on from there.
"""

import json
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.data.dialogues import USER, Turn
from collapse_cli.errors import InputError, how_many
from collapse_cli.foreign.answers import Answer, KeptAnswers, digest_of

if TYPE_CHECKING:
    import httpx2
    import openai

log = logging.getLogger(__name__)
SENT = {  # headers of a request: no account of the user's at another service, no description of this machine
    *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length", "authorization"),
}  # fmt: skip
MOST_BYTES = 16 << 20  # of one answer
MOST_TOKENS = 1 << 31  # of one answer, as a server may count them
SHOWN = 200  # characters of what a server says of an error
GRACE = 10.0  # seconds that answers on their way are still waited for when another one failed
ENDED = (
    "stop",
    "eos",
    "eos_token",
    "stop_sequence",
    "end_turn",
)  # reasons of servers: the model ended, or came to words it should end at
CUT = ("length", "max_tokens", "model_length", None)  # and: most tokens, or nothing said
CALLED = ("tool_calls", "function_call", "content_filter", "safety")  # no text in answer to the prompt
MOST_EMPTY = 0.1  # share of answers without text that is still put up with


@dataclass(frozen=True)
class Question:
    """What is asked of a server, for every prompt alike. All of it determines the answers.

    Attributes:
        server: the name of the model, or the address of a server that has one alone.
        chat: whether a prompt is what a user says, or the turns of a dialogue, rather than the beginning of a text.
        max_tokens: of an answer, as the server counts them.
        extra: what is sent besides.
    """

    server: str
    chat: bool
    max_tokens: int
    temperature: float
    top_p: float
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Connection:
    """Where and how a server is asked; nothing of it changes an answer.

    Attributes:
        address: as far as `/v1`.
        model: the name to ask for; "" for the only one there is.
        here: whether it runs on this machine.
        at_once: requests that are open at a time.
        timeout: seconds that an answer is waited for.
        retries: how often a request is sent again.
        key: the name of the environment variable that holds the server's key.
    """

    address: str
    model: str
    here: bool
    at_once: int
    timeout: float
    retries: int
    key: str


def answers(
    asked: Question,
    line: Connection,
    prompts: Sequence[str | Sequence[Turn]],
    seeds: Sequence[int],
    scratch: Path,
    tell: Callable[[int, int, str], None],
) -> list[Answer]:
    """The answer to each prompt, in order.

    Args:
        prompts: text, or with `asked.chat` the turns of a dialogue that are to be answered.
        seeds: one for each prompt, so that equal prompts may be answered otherwise.
        scratch: where answers are kept until all are there; what is there already is not asked for again.

    Raises:
        InputError: for whatever a server does wrong, or is not; how many answers are kept is said.
    """
    bodies = [_body(asked, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    digests = [digest_of({"server": asked.server, "chat": asked.chat, **body}) for body in bodies]
    kept = KeptAnswers(scratch / "answers.jsonl")
    try:
        missing = {digest: body for digest, body in zip(digests, bodies, strict=True) if digest not in kept}
        total, empty = len(set(digests)), dict[str, Answer]()
        if missing:
            with _Client(line, asked.chat) as client:
                for digest, answer in _as_they_come(client, missing, line.at_once, lambda: len(kept), total):
                    if answer.text:
                        kept.add(digest, answer)
                    else:  # a broken server's may not be the last word
                        empty[digest] = answer
                    tell(len(kept) + len(empty), total, "answers")
        if len(empty) > MOST_EMPTY * total:
            raise InputError(
                f"{line.address}: {len(empty):,} of {how_many(total, 'answer')} of the model {line.model or 'there'} are empty; look at "
                "what it answers to a prompt by hand, or ask otherwise (foreign.chat, foreign.extra, sample.decode)"
            )
        if empty:
            log.warning("%s: %d of %d answers are empty", line.address, len(empty), total)
        found = [kept[digest] if digest in kept else empty[digest] for digest in digests]
        _say_if_several(line.address, found)
        return found
    finally:
        kept.close()


def _say_if_several(address: str, found: Sequence[Answer]) -> None:
    """That answers are of models of several names, as where a server was started again with another one while some were kept."""
    names = Counter(answer.model for answer in found if answer.model).most_common()
    if len(names) > 1:
        few = "; ".join(f"{shown(name, 60)}: {how_many(count, 'answer')}" for name, count in names[:3])
        more = f"; and {how_many(len(names) - 3, 'other')}" if len(names) > 3 else ""
        log.warning("%s says that several models answered (%s%s); rows of all of them are taken", address, few, more)


def _body(asked: Question, prompt: str | Sequence[Turn], seed: int) -> dict[str, Any]:
    """A request but for the model's name, which is the server's affair where it has one alone."""
    own: dict[str, Any] = {"prompt": prompt}
    if asked.chat:
        turns = [Turn(USER, prompt)] if isinstance(prompt, str) else prompt
        own = {"messages": [{"role": turn.role, "content": turn.content} for turn in turns]}
    return {
        **own,
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "seed": seed,
        **asked.extra,
    }


def reach(line: Connection) -> None:
    """Find out before a run begins whether there is a server, and, where no model is named, which one it has.

    Whatever a server answers to the question which models it has, it is there; one that is slow to say so is not refused.

    Raises:
        InputError: when nothing can be reached there, or it is not clear which model is meant.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            client.greet()
        except BaseException as error:
            failed.append(error)

    with _Client(line, chat=False) as client:
        asking = threading.Thread(target=work, daemon=True)  # a server may say its headers letter by letter
        asking.start()
        asking.join(3 * GRACE)
        error = failed[0] if failed else None
    if isinstance(error, _NoAnswerError):
        raise InputError(str(error)) from None
    if error is not None:
        raise error


class _NoAnswerError(Exception):
    """Why there is no answer, in words."""


def _as_they_come(
    client: "_Client", missing: Mapping[str, Mapping[str, Any]], at_once: int, kept: Callable[[], int], total: int
) -> Iterator[tuple[str, Answer]]:
    """The answers to requests in the order in which they come. The first is waited for alone: what is wrong is wrong with all.

    Raises:
        InputError: after the first failure; answers that were on their way are still given.
    """
    first, *rest = missing.items()
    try:
        yield from _side_by_side(client, [first], 1)
        yield from _side_by_side(client, rest, at_once)
    except _NoAnswerError as error:
        said, there = str(error), kept()
        if there:
            said += "" if said.endswith("?") else ";"
            said += f" {there:,} of {how_many(total, 'answer')} are kept, and the same command asks for the others"
        raise InputError(said) from None


def _side_by_side(
    client: "_Client", requests: Sequence[tuple[str, Mapping[str, Any]]], at_once: int
) -> Iterator[tuple[str, Answer]]:
    """The answers to requests, so many of which are open at a time.

    Raises:
        _NoAnswerError: after the first failure; answers that were on their way are still given.
    """
    waiting: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()
    for item in requests:
        waiting.put(item)
    came: queue.SimpleQueue[tuple[str, Answer] | BaseException | None] = queue.SimpleQueue()
    over = threading.Event()

    def work() -> None:
        try:
            while not over.is_set():
                digest, body = waiting.get_nowait()
                came.put((digest, client.ask(body)))
        except queue.Empty:
            pass
        except BaseException as error:
            over.set()
            came.put(error)
        came.put(None)

    at_work = min(at_once, len(requests))
    try:
        for _ in range(at_work):  # daemons: whoever interrupts the run waits for none of them
            threading.Thread(target=work, daemon=True).start()
        failure: BaseException | None = None
        until = float("inf")
        while at_work and time.monotonic() < until:
            try:
                one = came.get(timeout=0.5)
            except queue.Empty:
                if client.overdue() and not failure:
                    over.set()
                    failure, until = _NoAnswerError(client.too_late), time.monotonic() + GRACE
                continue
            if one is None:
                at_work -= 1
            elif isinstance(one, BaseException):
                failure, until = failure or one, min(until, time.monotonic() + GRACE)
            else:
                yield one
        if failure:
            raise failure
    finally:
        over.set()


class _Client:
    """One server. Used by several threads at a time."""

    def __init__(self, line: Connection, chat: bool) -> None:
        import openai

        key = os.environ.get(line.key, "")
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise InputError(
                f"the environment variable {line.key} holds signs that no key of a server has; set it again"
            )
        self.line, self.chat, self.key = line, chat, key
        self._told = threading.Lock()
        self._begun: dict[int, float] = {}  # by thread, when the request began that has no response yet
        http = openai.DefaultHttpxClient(
            follow_redirects=False,
            trust_env=not line.here,  # no proxy between this machine and itself
            event_hooks={"request": [self._bared], "response": [self._bounded]},
        )
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=line.address,
            http_client=http,
            max_retries=line.retries,
            timeout=openai.Timeout(line.timeout, connect=min(10.0, line.timeout)),
        )
        self.model = line.model

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _bared(self, request: "httpx2.Request") -> None:
        """Nothing is sent but what is needed: the library adds what environment variables and the system say."""
        for name in list(request.headers):
            if name.lower() not in SENT or (name.lower() == "authorization" and not self.key):
                del request.headers[name]
        request.headers["accept-encoding"] = "identity"  # what is packed may be of any size
        self._begun[threading.get_ident()] = time.monotonic()

    def _bounded(self, response: "httpx2.Response") -> None:
        """An answer ends in time, and within reason."""
        import httpx2

        self._begun.pop(threading.get_ident(), None)
        response.encoding = (
            "utf-8"  # whatever it says: names of encodings are names of Python's codecs, not all of text
        )
        if packed := response.headers.get("content-encoding", "identity").strip().lower().replace("identity", ""):
            raise httpx2.DecodingError(
                f"they are packed with {shown(packed, 20)}, which was not asked for", request=response.request
            )
        if response.status_code == 429 and self._told.acquire(blocking=False):
            log.warning("%s limits how often it can be asked; requests wait as it says", self.line.address)
        response.stream = bounded(response.stream, self.line.timeout)

    def overdue(self) -> bool:
        """Whether a request has no response for longer than it takes: one that says its headers letter by letter is none."""
        most = 2 * self.line.timeout + 2 * GRACE
        return any(time.monotonic() - begun > most for begun in list(self._begun.values()))

    @property
    def too_late(self) -> str:
        return (
            f"{self.line.address} does not answer within {self.line.timeout:g} seconds; ask fewer at a time (foreign.at_once = "
            f"{self.line.at_once}), or wait longer (foreign.timeout)"
        )

    def greet(self) -> None:
        """Ask which models there are. Of a model that has a name the answer does not matter: servers need not list what they take.

        Raises:
            _NoAnswerError: when there is no server, or a name is needed.
        """
        import httpx2
        import openai

        if not self.model:
            with self._in_words():
                self._only_model()
            return
        patience = openai.Timeout(min(GRACE, self.line.timeout))
        client = self._client.with_options(max_retries=min(1, self.line.retries), timeout=patience)
        try:
            client.get("/models", cast_to=openai.HttpxBinaryResponseContent)
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise _NoAnswerError(self._unreachable(error)) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError):
                raise _NoAnswerError(self._unreachable(error)) from None
        except (openai.APIError, UnicodeError, ValueError, RuntimeError, TypeError, LookupError, AttributeError):
            pass  # it says something
        finally:
            self._begun.pop(threading.get_ident(), None)

    def ask(self, body: Mapping[str, Any]) -> Answer:
        """The answer to one request.

        Raises:
            _NoAnswerError: where there is none.
        """
        import openai

        with self._in_words():
            if not self.model:
                self.model = self._only_model()
            path = "/chat/completions" if self.chat else "/completions"
            content: bytes = self._client.post(
                path, body={"model": self.model, **body}, cast_to=openai.HttpxBinaryResponseContent
            ).read()
        return self._read(content, int(body["max_tokens"]))

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What the library raises, in words.

        Raises:
            _NoAnswerError: in place of it.
        """
        import openai

        address = self.line.address
        try:
            yield
        except openai.APIStatusError as error:
            raise _NoAnswerError(self._refused(error)) from None
        except openai.APITimeoutError:
            raise _NoAnswerError(self.too_late) from None
        except openai.APIConnectionError as error:
            raise _NoAnswerError(self._unreachable(error)) from None
        except (UnicodeError, ValueError) as error:
            raise _NoAnswerError(f"{address}: the request cannot be sent ({shown(str(error))})") from None
        except (RuntimeError, TypeError, LookupError, AttributeError) as error:  # the library reads what a server says
            raise _NoAnswerError(
                f"{address} says what cannot be read ({shown(str(error))}); is it an OpenAI-style server?"
            ) from None
        finally:
            self._begun.pop(threading.get_ident(), None)

    def _unreachable(self, error: BaseException) -> str:
        return f"{self.line.address} cannot be reached, or ends its answers early ({_cause(error)}); is the server running?"

    def _only_model(self) -> str:
        """The name of the one model that the server has."""
        import openai

        try:
            names = [model.id for model in self._client.models.list().data]
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise
            names = []
        except (AttributeError, TypeError, ValueError, RecursionError):
            names = []
        address = self.line.address
        if len(names) == 1:
            return str(names[0])
        there = (
            f"it has {', '.join(shown(str(name), 60) for name in names[:6])}"
            if names
            else "it does not say which it has"
        )
        raise _NoAnswerError(f"{address}: which model? ({there}) Name it behind a #: {address}#MODEL")

    def _refused(self, error: "openai.APIStatusError") -> str:
        """What to say of a status that is no success."""
        address, code = self.line.address, error.status_code
        says = self._hidden(_message(error.response))
        says = f" ({says})" if says else ""
        if code in (401, 403):
            given = (
                f"the key in {self.line.key}"
                if self.key
                else f"a request without a key (environment variable {self.line.key})"
            )
            return f"{address} refuses {given}: status {code}"
        if 300 <= code < 400:
            to = shown(error.response.headers.get("location", ""))
            return f"{address} sends its askers on to {to or 'another address'}, which is not followed; name that address itself"
        if code == 404 and not says:
            return f"{address} has no {'chat ' if self.chat else ''}completions there (status 404); does the address end as it should (/v1)?"
        if code == 429:
            after = shown(error.response.headers.get("retry-after", ""), 40)
            wait = f", and wants to be asked again after {after} seconds" if after else ""
            return f"{address} limits how often it can be asked{wait}{says}; give the same command later, or lower foreign.at_once"
        if code >= 500:
            return f"{address} has an error of its own, {how_many(self.line.retries + 1, 'time')} running: status {code}{says}"
        return (
            f"{address} refuses the request: status {code}{says}; is the model {self.model!r} there, and does it take "
            f"{'chats' if self.chat else 'prompts'} and these options (sample.decode, foreign.extra)?"
        )

    def _hidden(self, said: str) -> str:
        """What a server says, as a short line without the key."""
        return shown(said.replace(self.key, "…") if self.key else said)

    def _read(self, content: bytes, most: int) -> Answer:
        """The answer in what a server sent."""
        address = self.line.address
        try:
            found = json.loads(content.decode("utf-8"))
            if isinstance(found, dict) and found.get("error") and not found.get("choices"):
                raise _NoAnswerError(
                    f"{address} has an error of its own, which it says is none: {self._hidden(_said_of(found))}"
                )
            choice = found["choices"][0]
            text = choice["message"]["content"] if self.chat else choice["text"]
            reason, usage = choice.get("finish_reason"), found.get("usage") or {}
            tokens = usage.get("completion_tokens")
            if isinstance(tokens, int) and (tokens is True or tokens is False or not 0 <= tokens <= MOST_TOKENS):
                tokens = None  # no count
            if not isinstance(text, str | None) or not isinstance(tokens, int | None):
                raise TypeError
        except UnicodeDecodeError:
            raise _NoAnswerError(
                f"{address} answers in bytes that are not UTF-8; is it an OpenAI-style server?"
            ) from None
        except (ValueError, RecursionError):
            began = shown(content[:60].decode("utf-8", "replace"), 60)
            raise _NoAnswerError(
                f"{address} answers with something that is not JSON ({began!r}); is it an OpenAI-style server?"
            ) from None
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _NoAnswerError(
                f"{address} answers with JSON that holds no completion; is it an OpenAI-style server, and is foreign.chat right?"
            ) from None
        text = (text or "").encode("utf-8", "replace").decode()  # half of a pair of signs, as JSON can write one
        if reason not in ENDED + CUT + CALLED or choice.get(
            "error"
        ):  # "error", "abort": the text is a part of an answer
            why = self._hidden(_said_of(choice)) if choice.get("error") else shown(repr(reason), 60)
            raise _NoAnswerError(f"{address} broke off an answer ({why}); is the server well?")
        if reason in CALLED:
            text = ""
        if reason in CUT[:-1] and tokens is not None and tokens < most:
            raise _NoAnswerError(
                f"{address} cuts its answers after {how_many(tokens, 'token')} of the {most:,} that were asked for: its own limit, or "
                "the model's length; lower sample.new_tokens or sample.prompt_tokens (of chats and pairs data.block_size)"
            )
        model = found.get("model")
        return Answer(text, shown(model) if isinstance(model, str) else "", tokens, reason in ENDED)


def bounded(stream: Any, seconds: float) -> Any:
    """The body of a response, which fails when it takes longer than so many seconds, or is larger than any answer."""
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            until, read = time.monotonic() + seconds, 0
            for part in stream:
                read += len(part)
                if read > MOST_BYTES:
                    raise httpx2.ReadError(f"more than {MOST_BYTES >> 20} MB")
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout("it goes on and on")
                yield part

        def close(self) -> None:
            stream.close()

    return Bounded()


def shown(text: str, most: int = SHOWN) -> str:
    """What a server says, as one short line without signs that a terminal obeys."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text[: 4 * most])
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _message(response: "httpx2.Response") -> str:
    """What a server says of an error: as OpenAI's, FastAPI's, or plain text."""
    try:
        found = response.json()
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "")
        return response.text if kind.startswith("text/plain") else ""
    return _said_of(found)


def _said_of(found: Any) -> str:
    """The message in what a server says of an error."""
    for name in ("error", "detail", "message"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found)


def _cause(error: BaseException) -> str:
    """Why there is no connection, in the system's words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shown(str(error), 100) or type(error).__name__

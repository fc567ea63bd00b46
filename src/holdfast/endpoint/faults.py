"""Turns what a server sends into an answer or a typed fault.

A *transient* fault may be gone when the question is put again: the server is down, slow, busy or
garbled its answer. Every other is the user's to mend, and is raised at once. A question that is too
long for the model is no fault but an answer: it would stop all the others for nothing.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from holdfast.endpoint.answers import Answer, Finish
from holdfast.endpoint.settings import Server
from holdfast.errors import EndpointError, Fault

SHOWN = 200
"""Letters of a server's own words in a message."""
FINISHES: Mapping[Any, Finish] = {"length": "length", "content_filter": "filtered"}
BROKEN_OFF = ("error", "abort")
"""What servers and gateways call the end of an answer that is not whole."""
THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
"""Types of those parts of an answer that were thought and not said."""
MARKUP = 20_000
"""Letters of a web page in which its title is looked for."""
MOST_TOKENS = 10**9
"""What counts more says nothing."""
TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size)|maximum.{0,20}(context|tokens|length)"
    r"|too (long|many tokens)",
    re.IGNORECASE | re.DOTALL,
)
FILTERED = re.compile(r"content[_ ](filter|policy|management)|ResponsibleAI", re.IGNORECASE)
QUOTA = re.compile(r"insufficient_quota|billing|credit|exceeded your current quota", re.IGNORECASE)


class TransientFault(Exception):
    """A fault that may be gone when the question is put again.

    Attributes:
        error: what is raised when it is not.
        after: seconds that the server asks to wait; None: it does not say.
    """

    def __init__(self, error: EndpointError, after: float | None = None) -> None:
        """Take the error, and how long to wait."""
        super().__init__(error.message)
        self.error, self.after = error, after


class Stopped(Exception):
    """The work was stopped before a question was put."""


def unreachable(server: Server, error: Exception, slow: bool) -> TransientFault:
    """What a failure of the connection means.

    Args:
        server: which was asked.
        error: of the HTTP library.
        slow: it was a timeout.
    """
    if slow:
        said = f"no complete answer within {server.timeout_s:g} s"
        remedy = "raise timeout_s, lower concurrency, or see what the server is busy with"
        return TransientFault(_fault(server, "slow", said, remedy))
    host = server.url.split("/")[2]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            said, remedy = f"no host is called {host!r}", "correct `url`, or check the network"
            return TransientFault(_fault(server, "down", said, remedy))
        if isinstance(cause, ssl.SSLError):
            said = f"no safe connection: {cause.reason or 'TLS failed'}"
            remedy = "write http:// for a server without TLS, or mend its certificate"
            return TransientFault(_fault(server, "down", said, remedy))
        cause = cause.__cause__ or cause.__context__
    said = f"nothing answers there: {brief(str(error)) or type(error).__name__}"
    return TransientFault(_fault(server, "down", said, "start the server, or correct `url`"))


def read_response(server: Server, status: int, headers: Mapping[str, str], text: str) -> Answer:
    """The answer in what a server sent.

    Args:
        server: which was asked.
        status: of HTTP.
        headers: of HTTP, with lower-case names.
        text: the body, without the key should the server repeat it.

    Raises:
        TransientFault: a fault that may be gone when the question is put again.
        EndpointError: any other.
    """
    if status == 200:
        return _answer(server, headers, text)
    said = own_words(text)
    problem = f"the server says {status}{f': {said}' if said else ''}"
    if status in (400, 413, 422) and TOO_LONG.search(text):
        return Answer(said, "too long", server.model)
    if status == 400 and FILTERED.search(text):
        return Answer("", "filtered", server.model)
    if status in (401, 403):
        remedy = "the server wants a key: name the environment variable that holds it in `key_env`"
        if server.key_env:
            remedy = f"the key in {server.key_env} is not valid for this server or model"
        raise _fault(server, "key", problem, remedy)
    if status == 402 or (status == 429 and QUOTA.search(text)):
        raise _fault(server, "quota", problem, "the account has nothing left: top it up")
    if status == 404:
        raise _fault(server, "unknown", problem, "")  # `Endpoint` looks up what there is
    if status in (408, 425, 429) or status >= 500:
        kind: Fault = "busy" if status == 429 else "broken"
        remedy = "look at the server's log"
        if kind == "busy":
            remedy = "lower `concurrency`, set `requests_per_minute`, or wait for the quota"
        raise TransientFault(_fault(server, kind, problem, remedy), _wait(headers))
    if 300 <= status < 400:
        to = headers.get("location", "elsewhere").split("?")[0]
        remedy = "put the server's real address into `url` (a login page is none)"
        raise _fault(server, "garbled", f"the address leads on to {brief(to)}", remedy)
    remedy = "`extra: {field: null}` leaves out a field that the server does not know"
    raise _fault(server, "refused", problem, remedy)


def parsed(text: str) -> Any:
    """JSON of a server; integers beyond any use become floats.

    Raises:
        ValueError: it is none, or nested without end.
    """
    try:
        return json.loads(text, parse_int=lambda one: int(one) if len(one) < 20 else float(one))
    except RecursionError:
        raise ValueError("nested without end") from None


def _answer(server: Server, headers: Mapping[str, str], text: str) -> Answer:
    try:
        data = parsed(text)
    except ValueError:
        raise _not_json(server, headers, text) from None
    error = data.get("error") if isinstance(data, dict) else None
    choices = data.get("choices") if isinstance(data, dict) else None
    if error and not choices:  # gateways say 200 and put the fault into the body
        raise TransientFault(
            _fault(server, "broken", f"the server says: {own_words(text)}", "see the server's log")
        )
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        remedy = "is this an OpenAI-compatible chat server, and does `url` end in /v1?"
        raise TransientFault(_fault(server, "garbled", "the answer holds no choices", remedy))
    message = choices[0].get("message")
    if not isinstance(message, dict):
        remedy = "is this an OpenAI-compatible chat server?"
        raise TransientFault(_fault(server, "garbled", "the answer holds no message", remedy))
    content = message.get("content")
    if not _is_text(content):
        said = f"the answer's content is no text, but {type(content).__name__}"
        raise TransientFault(_fault(server, "garbled", said, "look at the server's log"))
    ended = choices[0].get("finish_reason")
    if ended in BROKEN_OFF:
        said = f"the answer broke off (finish_reason {ended!r})"
        raise TransientFault(_fault(server, "broken", said, "look at the server's log"))
    usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
    details = usage.get("completion_tokens_details")
    thought = (details if isinstance(details, dict) else usage).get("reasoning_tokens")
    return Answer(
        _text(message.get("content")) or _text(message.get("refusal")),
        FINISHES.get(ended, "stop") if isinstance(ended, str) else "stop",
        _named(server, data.get("model")),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _thinking(message),
        _count(thought),
    )


def _named(server: Server, said: Any) -> str:
    """The name that the answer bears, where it is the one that was asked for.

    Raises:
        EndpointError: another; figures would be ascribed to a model that did not answer.
    """
    name: str = said if isinstance(said, str) else ""
    if server.may_be(name):
        return name
    wanted = server.served_as or server.model
    raise _fault(
        server,
        "other",
        f"{brief(name)!r} answered, not {wanted!r}" if name else "the answer names no model",
        "ask for the model by the name that it answers with; if that is the same model under "
        f"another name, say so: served_as: {json.dumps(brief(name) or '*', ensure_ascii=False)}",
    )


def _not_json(server: Server, headers: Mapping[str, str], text: str) -> Exception:
    if "html" in headers.get("content-type", "") or text.lstrip()[:1] == "<":
        title = re.search(r"<title>(.*?)</title>", text[:MARKUP], re.IGNORECASE | re.DOTALL)
        about = f" ({brief(title[1])})" if title else ""
        return _fault(
            server,
            "garbled",
            f"a web page came instead of an answer{about}",
            "`url` leads to a website, a login page or a proxy: give the API's address, which "
            "mostly ends in /v1, or add its host to NO_PROXY",
        )
    said = f"the answer is no whole JSON ({len(text)} letters came)"
    return TransientFault(
        _fault(server, "garbled", said, "look at the server's log, or at a proxy's")
    )


def _fault(server: Server, fault: Fault, problem: str, remedy: str) -> EndpointError:
    return EndpointError(problem, fault=fault, where=server.where, remedy=remedy)


def _is_text(content: Any) -> bool:
    """Whether the content of an answer can be read; what cannot must not pass for silence."""
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(
        isinstance(one, str)
        or (isinstance(one, dict) and isinstance(one.get("text") or one.get("refusal") or "", str))
        for one in content
    )


def _text(content: Any) -> str:
    """What was said; servers send a string, nothing, or a list of parts, refusals among them."""
    if isinstance(content, list):
        parts = [
            one if isinstance(one, str) else one.get("text") or one.get("refusal")
            for one in content
            if isinstance(one, str) or (isinstance(one, dict) and one.get("type") not in THOUGHTS)
        ]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _thinking(message: Mapping[str, Any]) -> str:
    """What was thought, where it stands apart from what was said; servers differ in the field."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(said := message.get(name), str) and said.strip():
            return said.strip()
    parts = []
    for field in ("reasoning_details", "content"):
        rows = message.get(field)
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and (field != "content" or row.get("type") in THOUGHTS):
                said = row.get("thinking") or row.get("text") or row.get("summary")
                parts.append(_text(said))
        if text := "".join(parts).strip():
            return text
    return ""


def _count(value: Any) -> int:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_TOKENS
    return value if known else 0


def own_words(text: str) -> str:
    """The message in a server's own words, whichever of the usual shapes it has."""
    try:
        data = parsed(text)
    except ValueError:
        return "" if text.lstrip()[:1] == "<" else brief(text)
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(name):
            data = data[name]
    return brief(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))


def brief(text: str) -> str:
    """Some words of a server's, in one line that a terminal does not obey."""
    line = " ".join(text.split())
    line = "".join(one for one in line if one.isprintable())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds in a ``Retry-After`` header, which is a number or a date."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError, OSError):
        return None

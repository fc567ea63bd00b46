"""The settings of a server: address, model, pace and caps.

The key is never a setting: a study names the environment variable that holds it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from holdfast.config import Section
from holdfast.config.load import parse
from holdfast.errors import StudyError, UsageError

OWN_FIELDS = ("model", "messages", "stream", "n")
"""Fields of a request that are not the user's to set."""
ELSEWHERE = {"url", "key_env", "concurrency", "requests_per_minute", "timeout_s", "retries",
             "max_requests", "max_cost", "price_per_million", "cache"}  # fmt: skip
"""Settings that say where and how fast it is asked, not what."""

LONGEST = ("max_tokens", "max_completion_tokens")
"""Fields of a request that limit its answer; servers heed one, the other or both."""
LIMIT_IT = (
    "give `extra` a positive max_tokens or max_completion_tokens, or leave max_cost out (an answer "
    "of any length may cost any amount)"
)


class Price(Section):
    """What a million tokens cost, in any currency; the limit is in the same."""

    input: float = Field(ge=0)
    """Tokens of the prompt."""
    output: float = Field(ge=0)
    """Tokens of the answer."""


class Server(Section):
    """An OpenAI-compatible server and one of its models."""

    url: str
    """Up to and with `/v1`: `http://localhost:8000/v1`."""
    model: str = Field(min_length=1)
    """The model's name, as the server knows it."""
    served_as: str | None = None
    """The name that its answers bear, where that is another: `*` stands for any letters. Left out:
    an answer that bears another name is refused."""
    key_env: str | None = None
    """Name of the environment variable that holds the key. Left out: none is sent."""
    concurrency: int = Field(8, ge=1, le=256)
    """Questions under way at a time."""
    requests_per_minute: float | None = Field(None, gt=0)
    """The fastest rate, evenly spread. Left out: as fast as the answers come."""
    timeout_s: float = Field(120.0, gt=0)
    """Longest wait for one complete answer, in seconds."""
    retries: int = Field(5, ge=0)
    """How often a question is put again after a passing fault."""
    max_requests: int | None = Field(None, ge=1)
    """Most requests that one command sends, retries included."""
    max_cost: float | None = Field(None, gt=0)
    """Most that one command may spend; needs `price_per_million`."""
    price_per_million: Price | None = None
    """`{input: ..., output: ...}`, per million tokens."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request; `null` leaves one of ours out, such as `seed`."""
    cache: Path | None = None
    """Folder where answers are kept for every study. Left out: in the run's own folder."""

    @field_validator("url")
    @classmethod
    def _bare(cls, value: str) -> str:
        """Refuse what may hold a secret, without showing it."""
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is not a URL") from None
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "must hold no user, password or query (not shown here): put the key into an "
                "environment variable and name that in `key_env`"
            )
        if parts.scheme not in ("http", "https") or not host or parts.fragment:
            raise ValueError("is not a URL such as http://localhost:8000/v1")
        return value.rstrip("/").removesuffix("/chat/completions")

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        """Refuse what looks like the key itself, without showing it."""
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
            raise ValueError(
                "is the NAME of an environment variable, such as OPENAI_API_KEY, never the key "
                "itself (what was given is not shown here)"
            )
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.max_cost is not None and self.price_per_million is None:
            raise ValueError("max_cost needs price_per_million: {input: ..., output: ...}")
        if self.max_cost is not None and not max_answer_tokens({LONGEST[0]: 1} | self.extra):
            raise ValueError(f"max_cost cannot be kept to: {LIMIT_IT}")
        taken = sorted(set(OWN_FIELDS) & set(self.extra))
        if taken:
            raise ValueError(f"extra cannot set {', '.join(taken)}")
        return self

    @property
    def where(self) -> str:
        """For messages: the server and the model."""
        return f"{self.url} ({self.model})"

    def may_be(self, name: str) -> bool:
        """Whether an answer that bears this name is of the model that was asked."""
        return name == self.model or bool(self.served_as and fnmatchcase(name, self.served_as))

    def identity(self) -> dict[str, Any]:
        """What the answers depend on; where it runs, how fast and at what price is not among it."""
        named = {"model": self.model, "served_as": self.served_as, "extra": self.extra}
        return {name: value for name, value in named.items() if value}

    def key(self) -> str | None:
        """The key, for the request's header and for nothing else.

        Raises:
            UsageError: the environment variable is not set.
        """
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise UsageError(
                f"the environment variable {self.key_env} is not set, and the key is to be there",
                where=self.where,
                remedy=f"export {self.key_env}=... in the shell that starts holdfast",
            )
        if not key.isascii() or not key.isprintable():
            raise UsageError(
                f"the key in {self.key_env} holds letters that no key has (it is not shown)",
                where=self.where,
                remedy="copy it again, without quotes and line ends",
            )
        return key


BLOT = "[key]"
SHORTEST_SECRET = 8
"""A key of fewer letters ("EMPTY", "x") keeps no secret, and would be found in honest answers."""


class Blot:
    """Blots the key out of what a server sends back, however it is written there.

    Letter by letter as it is, in escapes of JSON, of URLs and of HTML, mixed as they come; as a
    whole in base64 and in hexadecimal.
    """

    def __init__(self, key: str | None) -> None:
        """Take the key; None: there is none."""
        secret = key if key and len(key) >= SHORTEST_SECRET else ""
        self._pattern = re.compile("|".join(_spellings(secret))) if secret else None
        ends = range(SHORTEST_SECRET, len(secret) + 1)
        self._parts = {secret[end - SHORTEST_SECRET : end] for end in ends}

    def __call__(self, text: str) -> str:
        """The text without the key; all else stays exactly as it is."""
        return self._pattern.sub(BLOT, text) if self._pattern else text

    def message(self, text: str) -> str:
        """A text for people, without long parts of the key either: it may come in pieces."""
        text = self(text)
        size = SHORTEST_SECRET
        hit = (
            [text[at : at + size] in self._parts for at in range(len(text))] if self._parts else []
        )
        covered = [any(hit[max(0, at - size + 1) : at + 1]) for at in range(len(hit))]
        if not any(covered):
            return text
        kept = "".join("\0" if gone else one for one, gone in zip(text, covered, strict=True))
        return re.sub("\0+", BLOT, kept)


def _spellings(key: str) -> list[str]:
    """Patterns for every way in which a key may be written."""
    one = "".join(
        rf"(?:\\{{0,9}}{re.escape(c)}|\\{{1,9}}u00(?i:{ord(c):02x})|%(?:25){{0,4}}(?i:{ord(c):02x})"
        rf"|&(?:amp;){{0,4}}#(?:0{{0,4}}{ord(c)}|[xX]0{{0,4}}(?i:{ord(c):x}));)"
        for c in key
    )
    data, found = key.encode(), [one, f"(?i:{key.encode().hex()})"]
    for shift, lost in ((0, 0), (1, 2), (2, 3)):  # as it may stand among other bytes
        text = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        text = text[lost : None if (shift + len(data)) % 3 == 0 else -1]
        found += [re.escape(text), re.escape(text.translate({43: "-", 47: "_"}))]
    return found


def max_answer_tokens(body: Mapping[str, Any]) -> int:
    """Most tokens that the answer to a request may have; 0: it does not say."""
    said = [body[name] for name in LONGEST if body.get(name) is not None]
    whole = [one for one in said if isinstance(one, int) and one > 0]  # -1 is "without end"
    return max(whole, default=0) if whole == said else 0


def is_endpoint(text: str) -> bool:
    """Whether a model is named by a server's address, not by a hub id or a folder."""
    return text.startswith(("http://", "https://"))


def parse_url(text: str) -> Server:
    """The server and the model that one line names: ``http://localhost:8000/v1#model-name``.

    Settings go between them: ``https://host/v1?key_env=OPENAI_API_KEY&concurrency=4#model-name``.

    Raises:
        StudyError: it names no model, or a setting that there is not.
    """
    address, _, model = text.partition("#")
    url, _, query = address.partition("?")
    if not is_endpoint(text) or not model:
        raise StudyError(
            "an endpoint is named by its address and its model",
            where=re.sub(r"//[^/]*@", "//", url),
            remedy="write http://localhost:8000/v1#model-name",
        )
    given = dict(parse_qsl(query, keep_blank_values=True))
    known = {name for name, field in Server.model_fields.items() if name not in ("url", "model")}
    plain = known - {"extra", "price_per_million"}
    unknown = sorted(set(given) - plain)
    if unknown:  # the value may be a key, and is not shown
        raise StudyError(
            f"an endpoint has no setting {unknown[0]!r}",
            where=re.sub(r"//[^/]*@", "//", url),
            remedy=f"after the `?` may stand: {', '.join(sorted(plain))}",
        )
    return parse(Server, {**given, "url": url, "model": model}, "endpoint")

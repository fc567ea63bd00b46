"""Sends one question to the server, again after a transient fault, and returns its answer.

The only place that knows the HTTP and the retry library, and the only one that holds the key: it
goes into the request's header, and is blotted out of whatever comes back.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import random
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from holdfast.endpoint.answers import Answer
from holdfast.endpoint.faults import Stopped, TransientFault, read_response, unreachable
from holdfast.endpoint.limits import RateLimiter, Spending
from holdfast.endpoint.settings import LIMIT_IT, Server, max_answer_tokens
from holdfast.environment import install_command
from holdfast.errors import MissingDependency, UsageError
from holdfast.progress import Progress
from holdfast.registry import nearest

if TYPE_CHECKING:
    from tenacity import RetryCallState

FIRST_WAIT_S = 1.0
LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 300.0
"""A server that asks for a longer pause is not waited for."""
CONNECT_S = 10.0
SILENT = 2
"""How often a server is waited for in vain that has not answered anything."""
PATIENCE = 10
"""How many times more often a question is put to a server that is busy answering others."""
MOST_BYTES = 32 << 20
"""What is longer is no answer but a download."""


def require_packages() -> Any:
    """Import what an endpoint needs, or say how to install it."""
    try:
        import httpx2
        import tenacity
    except ImportError as error:
        raise MissingDependency(
            "asking a server needs httpx2 and tenacity", remedy=install_command("remote")
        ) from error
    return httpx2, tenacity


class Connection:
    """A connection to one server, for several threads."""

    def __init__(
        self,
        server: Server,
        spending: Spending,
        rate: RateLimiter,
        first_wait_s: float,
        progress: Progress,
    ) -> None:
        """Take what all questions share; nothing is sent yet."""
        self._server, self._spending, self._rate = server, spending, rate
        self._first_wait_s, self._progress = first_wait_s, progress
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._arrived = 0

    def __enter__(self) -> Self:
        """Read the key and open the client.

        Raises:
            UsageError: the key is not there.
            MissingDependency: a package.
        """
        self._http, self._tenacity = require_packages()
        self._key = self._server.key()
        wire = logging.getLogger("httpcore2")  # its debug log shows whatever a server sends back
        wire.setLevel(max(wire.level, logging.INFO))
        asks = {"Accept": "application/json"}
        self._client = self._http.Client(
            headers=asks | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=self._http.Timeout(
                self._server.timeout_s, connect=min(CONNECT_S, self._server.timeout_s), pool=None
            ),
            limits=self._http.Limits(max_connections=self._server.concurrency),
            follow_redirects=False,  # the key is for this server
            trust_env=not _is_here(self._server.url),  # a proxy cannot reach this machine's servers
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._client.close()
        self._key = None

    def stop(self) -> None:
        """Send nothing new, and wait no longer for a next try."""
        self._stop.set()

    def send(self, body: Mapping[str, Any]) -> Answer:
        """Send one question, again after a transient fault.

        Args:
            body: of the request.

        Raises:
            EndpointError: the fault that did not pass.
            Stopped: it was not put.
        """
        arrived, waited = self._arrived, 0

        def give_up(state: RetryCallState) -> bool:
            nonlocal waited
            error = _transient(state)
            patience = 1
            waited += error.error.fault == "slow"
            if waited >= SILENT and self._arrived == 0 and not self._stop.is_set():
                error.error.message += f", {waited} times, and it has answered nothing yet"
                return True
            if error.error.fault == "busy" and self._arrived > arrived:
                patience = PATIENCE  # it does answer, only not everybody at once
            if (error.after or 0) > LONGEST_WAIT_S:
                error.error.message += f", and to wait {error.after:.0f} s"
                return True
            return self._stop.is_set() or state.attempt_number > patience * self._server.retries

        try:
            answer: Answer = self._tenacity.Retrying(
                retry=self._tenacity.retry_if_exception_type(TransientFault),
                wait=self._backoff,
                stop=give_up,
                sleep=self._stop.wait,
                before_sleep=self._tell,
                reraise=True,
            )(self._once, body)
        except TransientFault as fault:
            if self._stop.is_set():
                raise Stopped from None
            self._stop.set()  # here, before this thread takes up the next question
            raise fault.error from None
        except Exception as error:
            self._stop.set()
            raise error from None
        self._arrived += 1
        return answer

    def absent(self) -> str:
        """Why nothing can be reached there, in words; "" where something answers. Costs nothing."""
        try:
            self._client.get(f"{self._server.url}/models", timeout=CONNECT_S)
        except self._http.HTTPError as error:
            return f"{self._server.url}: {unreachable(self._server, error, False).error.message}"
        return ""

    def offers(self) -> str:
        """What to do about a model or an address that the server does not know."""
        try:
            said = self._client.get(f"{self._server.url}/models", timeout=CONNECT_S)
            names = sorted({str(one["id"]) for one in said.json()["data"]})
        except (self._http.HTTPError, ValueError, KeyError, TypeError):
            names = []
        if not names:
            return "check `model`, and that `url` ends where the server's API begins, mostly in /v1"
        near = nearest(self._server.model, names)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return self._clean(f"it serves{near}: {', '.join(names[:10])}{more}")

    def _once(self, body: Mapping[str, Any]) -> Answer:
        most = self._most(body)
        while not self._stop.is_set() and (seconds := self._rate.turn()) > 0:
            self._stop.wait(seconds)
        if self._stop.is_set():
            raise Stopped
        with self._spending.request(most, self._stop.is_set) as costs:
            try:
                status, headers, text = self._post(body)
            except self._http.TransportError as error:
                connects = (self._http.ConnectError, self._http.ConnectTimeout)
                if reached := not isinstance(error, connects):
                    costs(most)  # it may have been answered, and so be paid for
                slow = reached and isinstance(error, self._http.TimeoutException)
                raise unreachable(self._server, error, slow) from None
            try:
                answer = read_response(self._server, status, headers, text)
            except TransientFault as fault:
                if fault.after is not None and fault.after <= LONGEST_WAIT_S:
                    self._rate.pause(fault.after)
                raise
            finally:
                if status == 200:
                    costs(most)
            if answer.read or answer.written:
                costs(self._spending.cost(answer.read, answer.written))
        return answer

    def _post(self, body: Mapping[str, Any]) -> tuple[int, dict[str, str], str]:
        """Status, headers and text; in the time that one answer may take in all."""
        until = time.monotonic() + self._server.timeout_s
        url = f"{self._server.url}/chat/completions"
        with self._client.stream("POST", url, json=dict(body)) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if time.monotonic() > until:
                    raise self._http.ReadTimeout("too slow", request=response.request)
                if size > MOST_BYTES:
                    raise self._http.ReadError("a body without end", request=response.request)
            text = b"".join(parts).decode("utf-8", errors="replace")
            headers = {name.lower(): self._clean(value) for name, value in response.headers.items()}
            return response.status_code, headers, self._clean(text)

    def _most(self, body: Mapping[str, Any]) -> float:
        """The most that a question can cost."""
        written = max_answer_tokens(body)
        if self._server.max_cost is not None and written < 1:
            raise UsageError(
                "max_cost cannot be kept to: this question sets its answer no limit",
                where=self._server.where,
                remedy=LIMIT_IT,
            )
        length = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace"))
        return self._spending.most(length, len(body["messages"]), written)

    def _tell(self, state: RetryCallState) -> None:
        """Say the first fault of each kind: a wait without a word looks like a crash."""
        error, tries = _transient(state).error, self._server.retries
        if error.fault not in self._told and not self._stop.is_set():
            self._told.add(error.fault)
            again = f"trying again, {min(state.attempt_number, tries)} of {tries}"
            self._progress.say(f"{error.where}: {error.message}; {again}")

    def _backoff(self, state: RetryCallState) -> float:
        """Seconds until the next try: up to twice as long each time, and at random.

        So that many do not come back together: "full jitter" (Brooker, Exponential Backoff And
        Jitter, 2015), after the pause that the server asks for.
        """
        doubled = min(state.attempt_number - 1, self._server.retries)
        longest = min(LONGEST_BACKOFF_S, self._first_wait_s * 2**doubled)
        return (_transient(state).after or 0.0) + random.uniform(0, longest)

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _transient(state: RetryCallState) -> TransientFault:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientFault)
    return error


def _is_here(url: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

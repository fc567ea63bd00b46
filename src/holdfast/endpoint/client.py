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
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from holdfast.endpoint.answers import Answer, whole
from holdfast.endpoint.faults import (
    Stopped,
    TransientFault,
    brief,
    parsed,
    read_response,
    unreachable,
)
from holdfast.endpoint.limits import RateLimiter, Spending
from holdfast.endpoint.settings import LIMIT_IT, Blot, Server, max_answer_tokens
from holdfast.environment import install_command
from holdfast.errors import EndpointError, MissingDependency, UsageError
from holdfast.progress import Progress
from holdfast.registry import nearest

if TYPE_CHECKING:
    from tenacity import RetryCallState

Fault = TypeVar("Fault", TransientFault, EndpointError)
FIRST_WAIT_S = 1.0
LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 300.0
"""A server that asks for a longer pause is not waited for."""
CONNECT_S = 10.0
SILENT = 2
"""How often a server is waited for in vain that has not answered anything."""
PATIENCE = 10
"""How many times more often a question is put to a server that is busy answering others."""
MOST_BYTES = 16 << 20
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
        key = self._server.key()
        self._blot = Blot(key)
        wire = logging.getLogger("httpcore2")  # its debug log shows whatever a server sends back
        wire.setLevel(max(wire.level, logging.INFO))
        asks = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._client = self._http.Client(
            headers=asks | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=self._http.Limits(max_keepalive_connections=self._server.concurrency),
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
        self._client.headers.clear()

    def stop(self) -> None:
        """Send nothing new, and wait no longer for a next try."""
        self._stop.set()

    def send(self, body: Mapping[str, object]) -> Answer:
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
            self._fetch("GET", "models", CONNECT_S)
        except self._http.HTTPError as error:
            said = unreachable(self._server, error, False).error.message
            return self._blot.message(f"{self._server.url}: {said}")
        return ""

    def offers(self) -> str:
        """What to do about a model or an address that the server does not know."""
        try:
            data = parsed(self._fetch("GET", "models", CONNECT_S)[2])["data"]
            names = sorted({brief(str(one["id"])) for one in data})
        except (self._http.HTTPError, ValueError, KeyError, TypeError):
            names = []
        if not names:
            return "check `model`, and that `url` ends where the server's API begins, mostly in /v1"
        near = nearest(self._server.model, names)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return self._blot.message(f"it serves{near}: {', '.join(names[:10])}{more}")

    def call(self, method: str, path: str, body: object, seconds: float) -> tuple[int, str]:
        """Status and text of a request that is no question; `path` with a `/` is beside `/v1`.

        Raises:
            EndpointError: nothing answers.
        """
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        gone = (self._http.ReadError, self._http.WriteError, self._http.RemoteProtocolError)
        try:
            try:
                status, _, text = self._fetch(method, path, seconds, data)
            except gone:  # servers drop connections that they kept open
                status, _, text = self._fetch(method, path, seconds, data)
        except self._http.HTTPError as error:
            raise self._cleaned(unreachable(self._server, error, False).error) from None
        return status, text

    def _once(self, body: Mapping[str, object]) -> Answer:
        most = self._most(body)
        while not self._stop.is_set() and (seconds := self._rate.turn()) > 0:
            self._stop.wait(seconds)
        if self._stop.is_set():
            raise Stopped
        with self._spending.request(most, self._stop.is_set) as costs:
            try:
                status, headers, text = self._post(body)
            except self._http.RequestError as error:
                connects = (self._http.ConnectError, self._http.ConnectTimeout)
                if reached := not isinstance(error, connects):
                    costs(most)  # it may have been answered, and so be paid for
                slow = reached and isinstance(error, self._http.TimeoutException)
                raise self._cleaned(unreachable(self._server, error, slow)) from None
            try:
                answer = self._kept(read_response(self._server, status, headers, text))
            except TransientFault as fault:
                if fault.after is not None and fault.after <= LONGEST_WAIT_S:
                    self._rate.pause(fault.after)
                raise self._cleaned(fault) from None
            except EndpointError as error:
                raise self._cleaned(error) from None
            finally:
                if status == 200:
                    costs(most)
            if answer.read or answer.written:
                costs(self._spending.cost(answer.read, answer.written))
        return answer

    def _post(self, body: Mapping[str, object]) -> tuple[int, dict[str, str], str]:
        """Status, headers and text; in the time that one answer may take in all."""
        data = json.dumps(dict(body), ensure_ascii=False).encode("utf-8", "replace")
        return self._fetch("POST", "chat/completions", self._server.timeout_s, data)

    def _fetch(
        self, method: str, path: str, seconds: float, data: bytes | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text without the key.

        A thread of its own, since no library bounds the time of a head that comes letter by letter,
        or of a name that is looked up; it ends when the connection is closed.
        """
        found: Future[tuple[int, dict[str, str], bytes]] = Future()
        until = time.monotonic() + seconds
        url = self._server.url.removesuffix("/v1") if path[:1] == "/" else f"{self._server.url}/"
        request = self._client.build_request(
            method, f"{url}{path}", content=data, timeout=self._timeout(seconds),
            headers={"Content-Type": "application/json"} if data else None,
        )  # fmt: skip

        def read() -> None:
            try:
                found.set_result(self._read(request, until))
            except BaseException as error:
                found.set_exception(error)

        threading.Thread(target=read, name="endpoint-read", daemon=True).start()
        try:
            status, headers, body = found.result(seconds * 1.1 + 0.2)
        except TimeoutError:
            raise self._http.ReadTimeout("too slow", request=request) from None
        text = body.decode(json.detect_encoding(body), errors="replace")
        cleaned = {name.lower(): self._blot(value) for name, value in headers.items()}
        return status, cleaned, self._blot(text)

    def _timeout(self, seconds: float) -> Any:
        return self._http.Timeout(seconds, connect=min(CONNECT_S, seconds), pool=None)

    def _read(self, request: Any, until: float) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; neither long nor swollen bodies are taken in."""
        response = self._client.send(request, stream=True)
        try:
            packed = _decompressor(response.headers.get("content-encoding", ""))
            parts, left = [], MOST_BYTES
            for part in response.iter_raw():
                if packed is not None:
                    part = packed.decompress(part, left + 1)
                parts.append(part)
                left -= len(part)
                if time.monotonic() > until:
                    raise self._http.ReadTimeout("too slow", request=request)
                if left < 0:
                    raise self._http.ReadError("a body without end", request=request)
            if packed is not None and not packed.eof:
                raise self._http.ReadError("a compressed body that is torn", request=request)
        except zlib.error:
            raise self._http.ReadError("a body that cannot be unpacked", request=request) from None
        finally:
            response.close()
        return response.status_code, dict(response.headers), b"".join(parts)

    def _kept(self, answer: Answer) -> Answer:
        """An answer without the key, which may stand in pieces before they are put together."""
        text, thinking, model = (
            self._blot(whole(one)) for one in (answer.text, answer.thinking, answer.model)
        )
        return replace(answer, text=text, thinking=thinking, model=model)

    def _cleaned(self, error: Fault) -> Fault:
        """An error without the key in it."""
        one = error.error if isinstance(error, TransientFault) else error
        one.message = self._blot.message(whole(one.message))
        one.remedy = self._blot.message(whole(one.remedy))
        one.args = (one.message, one.where, one.remedy)
        if isinstance(error, TransientFault):
            error.args = (one.message,)
        return error

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


def _decompressor(encoding: str) -> Any:
    """What unpacks a body, as far as it is told to; nothing was asked to be packed."""
    return zlib.decompressobj(47) if encoding.strip().lower() in ("gzip", "deflate") else None


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

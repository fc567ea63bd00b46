"""Limits how fast a server is asked (`RateLimiter`), and for how much (`Spending`).

Both are shared by all threads that ask one server. A request is only sent when the most that it can
cost still fits under the cap, so that the cap holds even with many under way; what an answer really
used takes the place of that bound when it arrives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.endpoint.faults import Stopped
from holdfast.endpoint.settings import Server
from holdfast.errors import EndpointError

TURN_TOKENS = 16
"""Tokens of a chat template around one message, at most."""


class RateLimiter:
    """Spreads requests evenly, and holds all of them when the server asks for a pause."""

    def __init__(
        self, per_minute: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the fastest rate, in requests per minute; None: as they come."""
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock, self._lock = clock, threading.Lock()
        self._free = self._paused = 0.0

    def pause(self, seconds: float) -> None:
        """Let nothing start for a while."""
        with self._lock:
            self._paused = max(self._paused, self._clock() + seconds)

    def turn(self) -> float:
        """Seconds to wait before asking for a turn again; 0: it is taken."""
        with self._lock:
            now = self._clock()
            wait = max(self._free, self._paused) - now
            if wait <= 0:
                self._free = now + self._gap
            return max(0.0, wait)


class Spending:
    """Counts requests and money against the user's caps.

    Attributes:
        sent: requests, retries included.
        spent: in the user's currency.
    """

    def __init__(self, server: Server) -> None:
        """Take the caps and the price."""
        self._server, self._price = server, server.price_per_million
        self._changed = threading.Condition()
        self._held = self.spent = 0.0
        self._under_way = self.sent = 0

    def most(self, length: int, messages: int, max_tokens: int) -> float:
        """The most that one question can cost: no token is shorter than a byte.

        Args:
            length: of the question, in bytes.
            messages: how many turns it has.
            max_tokens: longest answer.
        """
        return self.cost(length + TURN_TOKENS * (messages + 1), max_tokens)

    def cost(self, read: int, written: int) -> float:
        """What so many tokens cost; 0 without a price."""
        if self._price is None:
            return 0.0
        return (read * self._price.input + written * self._price.output) / 1e6

    @contextmanager
    def request(
        self, most: float, stopped: Callable[[], bool]
    ) -> Iterator[Callable[[float], None]]:
        """Send one request under the caps.

        Args:
            most: that it can cost.
            stopped: whether nothing is to be sent any more.

        Yields:
            To be called with what it did cost; else it is taken to have cost nothing.

        Raises:
            EndpointError: a cap is reached.
            Stopped: the work was stopped meanwhile.
        """
        real = [0.0]
        with self._changed:
            self._take(most, stopped)
        try:
            yield lambda amount: real.__setitem__(0, amount)
        finally:
            with self._changed:
                self._under_way -= 1
                self._held = self._held - most if self._under_way else 0.0
                self.spent += real[0]
                self._changed.notify_all()

    def _take(self, most: float, stopped: Callable[[], bool]) -> None:
        server = self._server
        if server.max_requests is not None and self.sent >= server.max_requests:
            raise EndpointError(
                f"max_requests is reached: {self.sent} requests were sent",
                fault="cap",
                where=server.where,
                remedy="raise max_requests, or run again to send as many once more",
            )
        if server.max_cost is not None:
            while self.spent + self._held + most > server.max_cost and self._under_way:
                if stopped():
                    raise Stopped
                self._changed.wait(0.5)
            if self.spent + self._held + most > server.max_cost:
                raise EndpointError(
                    f"max_cost is reached: {self.spent:.4g} of {server.max_cost:g} is spent, and "
                    f"the next question may cost {most:.2g}",
                    fault="cap",
                    where=server.where,
                    remedy="raise max_cost, or run again to spend as much once more",
                )
        self._held += most
        self._under_way += 1
        self.sent += 1

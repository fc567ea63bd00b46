"""Serves a run's report on this machine alone, renewed for as long as the study runs.

Only 127.0.0.1 is listened on, and only requests that were made to it by that name are answered, so
that no page of the web can read a report through a name of its own. The page asks once in a while
whether there is a newer one; it fetches nothing else.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from holdfast.analysis.so_far import how_far, results_so_far
from holdfast.errors import HoldfastError, UsageError, first_line
from holdfast.report.html import browser
from holdfast.report.run import results_with_replies
from holdfast.report.write import render
from holdfast.runs.live import Look, Watched

HOST = "127.0.0.1"
SLOWER = 5.0
"""A page that took a second to make is made anew after five at the earliest."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LATER = "Replies are shown when the study is finished."


class Served:
    """The page of one run, made anew when the run has something new."""

    def __init__(
        self, folder: Path, replies: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Make the first page.

        Args:
            folder: the run folder.
            replies: show those to so many items of each task, once the study is finished.
            now: the clock, in seconds.

        Raises:
            HoldfastError: no run folder, one without a plan, or files that are not as they were.
        """
        self._watched, self._replies, self._now = Watched(folder), replies, now
        self._lock, self._next = threading.Lock(), 0.0
        self._seen, self._page, self._wrong = "", b"", ""
        self._parts: browser.Replies | None = None
        self.look = self._watched.look()
        self._renew()

    def page(self) -> bytes:
        """The newest page, HTML in UTF-8."""
        with self._lock:
            self._renew()
            return self._page

    def part(self, path: str) -> str | None:
        """A part of the replies that the newest page looks for; None where it has none such."""
        with self._lock:
            return self._parts.file(path) if self._parts else None

    def state(self) -> dict[str, str]:
        """The mark of the page that `page` gives now, and how far the study is."""
        with self._lock:
            self._renew()
            return {"mark": self._seen, "line": how_far(self.look) + self._wrong}

    def _renew(self) -> None:
        with suppress(HoldfastError):  # written anew at this moment: the next look finds it
            self.look = self._watched.look()
        mark = _mark(self.look)
        if self._page and (mark == self._seen or self._now() < self._next):
            return
        started = self._now()
        try:
            self._page = self._rendered(mark).encode("utf-8", "backslashreplace")
            self._seen, self._wrong = mark, ""
        except (HoldfastError, OSError) as error:  # a file that is being written anew, or damaged
            if not self._page:
                raise
            self._wrong = f"; not shown yet: {first_line(error)}"
        self._next = self._now() + SLOWER * (self._now() - started)

    def _rendered(self, mark: str) -> str:
        folder = self._watched.folder
        if "stats" in self.look.done:
            results = results_with_replies(folder, self._replies)
            self._parts = browser.replies_of(results)
            return render(results, mark, replies=self._parts)
        found = results_so_far(self._watched.plan, self.look)
        if self._replies:
            found = replace(found, warnings=(*found.warnings, LATER))
        return render(found, mark)


def _mark(look: Look) -> str:
    """Changes when there is something new to show; of a training under way not at every step."""
    told = [sorted(look.done.items()), look.working, look.state, str(look.told.get("share"))[:4]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def server(served: Served, port: int = 0) -> ThreadingHTTPServer:
    """A server of one run's page on the loopback; `serve_forever` begins to answer.

    Args:
        served: the run.
        port: 0: any that is free.

    Raises:
        UsageError: the port is taken, or not allowed.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD of the page and of its state."""

        server_version, sys_version = "holdfast", ""

        def do_GET(self) -> None:
            """The page, or its state."""
            self._answer(body=True)

        def do_HEAD(self) -> None:
            """The same without a body."""
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            own = made.server_address[1]
            if self.headers.get("Host") not in {f"{HOST}:{own}", f"localhost:{own}"}:
                self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"another host\n", body)
            elif self.path == "/":
                self._send(HTTPStatus.OK, "text/html", served.page(), body)
            elif self.path == "/state":
                text = json.dumps(served.state(), ensure_ascii=True).encode()
                self._send(HTTPStatus.OK, "application/json", text, body)
            elif (part := served.part(self.path.removeprefix("/"))) is not None:
                self._send(HTTPStatus.OK, "application/json", part.encode(), body)
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such page\n", body)

        def _send(self, status: HTTPStatus, kind: str, content: bytes, body: bool) -> None:
            with suppress(ConnectionError):  # whoever asked has gone
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                for name, value in HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    try:
        made = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot be listened on: {getattr(error, 'strerror', None) or error}",
            where=f"{HOST}:{port}",
            remedy="choose another --port, or leave it out for any that is free",
        ) from error
    return made

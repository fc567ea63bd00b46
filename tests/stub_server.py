"""A server that speaks the chat-completions protocol on 127.0.0.1, and misbehaves as it is told to.

`faults` are served first, one per question; then every question is answered by `say`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Fault = Callable[["_Handler", Body], None]


class StubServer:
    """Use as a context manager.

    Attributes:
        bodies: of the questions that came, in order.
        headers: of each.
        times: when each came, by a monotonic clock.
        most: most questions under way at once.
    """

    def __init__(
        self,
        say: Callable[[Body], str] = lambda body: "Safety: Safe",
        model: str = "judge",
        seconds: float = 0.0,
        key: str | None = None,
    ) -> None:
        self.say, self.model, self.seconds, self.key = say, model, seconds, key
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.served = [model, "another-judge"]
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 10, "completion_tokens": 5}
        self.most = self._now = 0
        self.lock = threading.Lock()

    def __enter__(self) -> StubServer:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def enter(self, body: Body, headers: dict[str, str]) -> Fault | None:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
            return self.faults.popleft() if self.faults else self.always

    def leave(self) -> None:
        with self.lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.send(404, {"detail": "Not Found"})
        self.send(200, {"object": "list", "data": [{"id": one} for one in self.stub.served]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.stub.enter(body, {k.lower(): v for k, v in self.headers.items()})
        try:
            if self.path != "/v1/chat/completions":
                self.send(404, {"detail": "Not Found"})
            elif self.stub.key and self.headers["Authorization"] != f"Bearer {self.stub.key}":
                said = f"Incorrect API key provided: {self.headers['Authorization']}"
                self.send(401, {"error": {"message": said, "code": "invalid_api_key"}})
            elif body["model"] != self.stub.model and fault is None:
                said = f"The model `{body['model']}` does not exist."
                self.send(404, {"error": {"message": said, "code": "model_not_found"}})
            elif fault is not None:
                fault(self, body)
            else:
                time.sleep(self.stub.seconds)
                self.send(200, self.completion(body))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.stub.leave()

    def completion(self, body: Body, **changes: Any) -> Body:
        message = {"role": "assistant", "content": changes.pop("content", None)}
        if message["content"] is None:
            message["content"] = self.stub.say(body)
        choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish", "stop")}
        answer = {"id": "1", "object": "chat.completion", "model": self.stub.model}
        answer |= {"choices": [choice]}
        if self.stub.usage is not None:
            answer["usage"] = self.stub.usage
        return answer | changes

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, one in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, one)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def status(code: int, said: str = "", **headers: str) -> Fault:
    """An error in OpenAI's shape."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: handler.send(code, {"error": {"message": said}}, named)


def page(code: int = 200, title: str = "Sign in") -> Fault:
    """A website, a login page or a proxy's error."""
    text = f"<!doctype html><html><title>{title}</title><body>Please</body></html>".encode()
    return lambda handler, body: handler.send(code, text, {"Content-Type": "text/html"})


def torn() -> Fault:
    """JSON that ends in the middle."""

    def fault(handler: _Handler, body: Body) -> None:
        handler.send(200, json.dumps(handler.completion(body)).encode()[:60])

    return fault


def hang_up() -> Fault:
    """The connection is closed without a word."""

    def fault(handler: _Handler, body: Body) -> None:
        handler.close_connection = True
        handler.connection.close()

    return fault


def trickle(seconds: float) -> Fault:
    """A byte now and then, for some time: every single read is fast enough."""

    def fault(handler: _Handler, body: Body) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            handler.wfile.write(b" ")
            time.sleep(0.02)
        handler.close_connection = True

    return fault


def slow(seconds: float) -> Fault:
    """Silence, then the right answer."""

    def fault(handler: _Handler, body: Body) -> None:
        time.sleep(seconds)
        handler.send(200, handler.completion(body))

    return fault


def answer(**changes: Any) -> Fault:
    """An answer with some fields changed: ``content``, ``finish``, ``model``, ``choices``, ..."""
    return lambda handler, body: handler.send(200, handler.completion(body, **dict(changes)))

"""Does an export reach the hub, card included, and only when that is asked for?"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from holdfast.errors import FolderError, Unreachable, UsageError
from holdfast.shipping.push import look, push


class Hub(ThreadingHTTPServer):
    """As much of the hub's interface as an upload needs; keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.made: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.refused = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Asked(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._say(404, {"error": "Repository not found"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refused:
            self._say(self.server.refused, {"error": "You may not"})
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._say(200, {"url": f"{self.server.address}/me/mine", "name": "me/mine"})
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._say(200, {"files": files})
        elif "/commit/" in self.path:
            for line in filter(None, body.decode().splitlines()):
                row = json.loads(line)
                if row["key"] == "file":
                    value = row["value"]
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{self.server.address}/me/mine/commit/{'0' * 40}"
            self._say(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url})
        else:
            self._say(200, {})

    def _say(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    for name, text in (
        ("README.md", "---\ntags: [holdfast]\n---\n# mine\n"), ("decision.json", "{}"),
        ("study.yaml", "name: s\nmodel: lab\n"), ("model.safetensors", "weights"),
        (".hidden", "not sent"),
    ):  # fmt: skip
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_it_is_said_before_anything_is_sent(export: Path) -> None:
    found = look(export, "me/mine")
    assert not found.sent
    assert [name for name, _ in found.files] == [
        "README.md", "decision.json", "model.safetensors", "study.yaml",
    ]  # fmt: skip
    assert "Would be sent to" in found.text() and "7 bytes" in found.text()
    assert found.notices == ()
    (export / "study.yaml").write_text("tasks: {a: {path: /home/me/data.csv}}\n", "utf-8")
    assert "/home/me/data.csv" in look(export, "me/mine").notices[0]


@pytest.mark.parametrize("name", ["mine", "me/", "me/../you", "me/mi ne", "/me/mine", "a/b/c", ""])
def test_names_that_cannot_be(export: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name on the hub"):
        look(export, name)


def test_only_exports_are_sent(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is no export"):
        look(tmp_path, "me/mine")


def test_offline_is_said(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HOLDFAST_HUB_IS_DOWN", raising=False)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE"):
        push(export, "me/mine")


SEND = """
import sys
from pathlib import Path
from holdfast.errors import HoldfastError
from holdfast.shipping.push import push
try:
    print(push(Path(sys.argv[1]), "me/mine").text())
except HoldfastError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def _send(export: Path, hub: Hub, home: Path, token: str = "hf_not_a_secret") -> tuple[int, str]:
    """In a process of its own: where the hub is, its client reads once."""
    given = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token,
             "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name != "HOLDFAST_HUB_IS_DOWN"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SEND, str(export)],
        env=kept | given, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_it_arrives_whole(export: Path, hub: Hub, tmp_path: Path) -> None:
    code, said = _send(export, hub, tmp_path / "hf")
    assert code == 0, said
    assert f"Sent to {hub.address}/me/mine" in said
    made = hub.made[0]  # the client has called it both
    assert made.get("visibility", "private" if made.get("private") else "") == "private"
    sent = {name: content.decode() for name, content in hub.files.items()}
    there = {one.name: one.read_text() for one in export.iterdir() if one.name != ".hidden"}
    assert {name: sent.get(name) for name in there} == there
    assert ".hidden" not in sent


def test_a_refusal_has_a_remedy_and_no_secret(export: Path, hub: Hub, tmp_path: Path) -> None:
    hub.refused = 403
    code, said = _send(export, hub, tmp_path / "hf")
    assert code == 1
    assert "the hub did not take it" in said and "hf auth login" in said
    assert "hf_not_a_secret" not in said

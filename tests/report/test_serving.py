"""The report of a run under way is served to this machine alone, and renews itself."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.report import Page
from fixtures.terminal import press

from holdfast.cli import call
from holdfast.errors import FolderError, UsageError
from holdfast.report.serving import HOST, Served, server


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@contextmanager
def served(run: Path, replies: int = 0) -> Iterator[int]:
    """The port on which the run is served."""
    with server(Served(run, replies, now=lambda: 0.0)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made.server_address[1]
        finally:
            made.shutdown()
            thread.join()


def ask(
    port: int, path: str = "/", host: str | None = None, method: str = "GET"
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def test_a_study_that_goes_on_is_shown_as_far_as_it_is(run: Path) -> None:
    kept = run.with_name("kept")
    kept.mkdir()
    for name in ("stats", "report"):
        (run / name).rename(kept / name)
    (run / "lock.json").write_text(json.dumps({"pid": os.getpid()}))
    with served(run) as port:
        status, page, headers = ask(port)
        state = json.loads(ask(port, "/state")[1])
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        assert "This study is not finished" in Page(page).text and "So far: " in page
        assert f'data-mark="{state["mark"]}"' in page and state["line"].startswith("under way")
        assert json.loads(ask(port, "/state")[1]) == state
        for name in ("stats", "report"):
            (kept / name).rename(run / name)
        (run / "lock.json").unlink()
        later = json.loads(ask(port, "/state")[1])
        assert later["mark"] != state["mark"] and later["line"].startswith("finished")
        page = ask(port)[1]
        assert f'data-mark="{later["mark"]}"' in page
        assert "not finished" not in page and "So far" not in page


def test_only_this_machine_is_answered(run: Path) -> None:
    with served(run) as port:
        for host in ("evil.example", f"evil.example:{port}", HOST, "", f"[::1]:{port}"):
            status, text, _ = ask(port, host=host)
            assert (status, text) == (421, "another host\n"), host
        for host in (f"{HOST}:{port}", f"localhost:{port}"):
            assert ask(port, host=host)[0] == 200
        with socket.socket(socket.AF_INET) as other, pytest.raises(OSError):
            other.settimeout(5)
            other.connect(("127.0.0.2", port))


def test_nothing_else_is_served(run: Path) -> None:
    with served(run) as port:
        for path in ("/plan.json", "/../plan.json", "/index.html", "/?a", "/%2e%2e/"):
            assert ask(port, path)[0] == 404, path
        assert ask(port, method="POST")[0] == 501
        status, text, headers = ask(port, method="HEAD")
        assert status == 200 and not text and int(headers["Content-Length"]) > 10_000
        assert headers["Cache-Control"] == "no-store"
        assert "holdfast" in headers["Server"] and "Python" not in headers["Server"]


def test_the_page_may_ask_its_server_and_nobody_else(run: Path) -> None:
    with served(run) as port:
        page = ask(port)[1]
    policy = next(
        values["content"] for tag, values in Page(page).tags
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    assert policy is not None and "default-src 'none'" in policy
    assert "connect-src 'self'" in policy and policy.count("'sha256-") == 2


def test_replies_of_a_study_that_goes_on_come_later(run: Path) -> None:
    with served(run, replies=2) as port:
        assert 'id="replies"' in ask(port)[1]
    shutil.rmtree(run / "stats")
    with served(run, replies=2) as port:
        assert "Replies are shown when the study is finished" in ask(port)[1]


def test_a_page_is_not_made_anew_all_the_time(run: Path) -> None:
    clock = [0.0]

    def now() -> float:
        clock[0] += 1.0  # making a page takes a second
        return clock[0]

    found = Served(run, now=now)
    before = found.state()["mark"]
    shutil.rmtree(run / "report")
    assert found.state()["mark"] == before, "too early"
    clock[0] += 10.0
    assert found.state()["mark"] != before


def test_a_torn_file_leaves_the_page_that_there_was(run: Path) -> None:
    shutil.rmtree(run / "stats")
    found = Served(run, now=lambda: 0.0)
    page = found.page()
    file = next((run / "readings").rglob("readings.jsonl"))
    file.write_text("{")
    (run / "progress.json").write_text(json.dumps({"share": 0.5}))  # there is something new
    assert found.page() == page
    assert "; not shown yet: " in found.state()["line"]


def test_bad_requests_to_serve(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FolderError):
        Served(tmp_path)
    with served(run) as port, pytest.raises(UsageError, match="cannot be listened on"):
        server(Served(run), port)
    assert call(["report", str(run), "--port", "8000"]) == 3
    assert "--port goes with --serve" in capsys.readouterr().err


def test_ctrl_c_ends_it(run: Path) -> None:
    code, text = press(
        ["report", str(run), "--serve"], "http.server:ThreadingHTTPServer.service_actions"
    )
    assert code == 0, text
    assert "Report: http://127.0.0.1:" in text and "Traceback" not in text

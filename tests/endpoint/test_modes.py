"""Whatever a server does: read, or a typed fault within seconds; and the key stands nowhere."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fixtures.stub_modes import ANSWERED, MODES, SECONDS, body, endless, message
from fixtures.stub_server import Fault, StubServer, answer, status
from hypothesis import given
from hypothesis import strategies as st

from holdfast.endpoint import ANSWERS, Answer, Endpoint, Server
from holdfast.endpoint.faults import TransientFault, read_response
from holdfast.endpoint.settings import BLOT, Blot
from holdfast.errors import EndpointError
from holdfast.progress import Silent
from holdfast.types import Message

KEY = "sk-Not4Real+Key/99"


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


def _endpoint(stub: StubServer, **settings: Any) -> Endpoint:
    settings = {"timeout_s": 5, "retries": 1, "concurrency": 1} | settings
    return Endpoint(Server(url=stub.url, model="judge", **settings), 0.01)


def _ask(one: Endpoint, folder: Path | None = None, question: str = "q") -> Answer:
    return one.ask([one.request([Message("user", question)], 8)], folder, Silent())[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_answered_or_typed_within_seconds(
    server: StubServer, tmp_path: Path, mode: str
) -> None:
    fault, expected = MODES[mode]
    server.always, server.bodies = fault, []
    own = {"timeout_s": SECONDS if expected == "slow" else 5}
    started = time.monotonic()
    if expected == ANSWERED:
        found = _ask(_endpoint(server, **own), tmp_path)
        assert json.dumps(found.text, ensure_ascii=False).encode()
        assert 0 <= found.read < 10**10 and 0 <= found.written < 10**10
        if found.says_something():
            assert _ask(_endpoint(server, **own), tmp_path) == found, "kept exactly"
            assert len(server.bodies) == 1, "nothing is paid for twice"
    else:
        with pytest.raises(EndpointError) as caught:
            _ask(_endpoint(server, **own), tmp_path)
        assert caught.value.fault == expected, caught.value
        assert caught.value.remedy and len(str(caught.value)) < 2_000
        assert str(caught.value).replace("\n", "").isprintable()
        assert not (tmp_path / ANSWERS).exists()
    assert time.monotonic() - started < 10


def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with StubServer() as other, StubServer() as stub:
        for code in (301, 302, 303, 307, 308):
            stub.always = status(code, Location=f"{other.url}/chat/completions")
            with pytest.raises(EndpointError, match="the address leads on"):
                _ask(_endpoint(stub, key_env="MY_KEY"))
        assert len(stub.bodies) == 5 and not other.bodies


def test_the_list_of_models_may_have_no_end(server: StubServer) -> None:
    server.always = status(404, "no")
    served, server.served = server.served, ["\x1b[31m" + "m" * 500_000] * 3
    try:
        with pytest.raises(EndpointError) as caught:
            _ask(_endpoint(server))
    finally:
        server.served = served
    assert len(str(caught.value)) < 2_000 and "\x1b" not in str(caught.value)


SPELLINGS = {
    "plain": KEY,
    "escaped slash": KEY.replace("/", "\\/"),
    "escaped dash": KEY.replace("-", "\\u002d"),
    "all escaped": "".join(f"\\u{ord(one):04X}" for one in KEY),
    "escaped twice": json.dumps(json.dumps(KEY).replace("-", "\\u002d"))[1:-1],
    "of a URL": quote(KEY, safe=""),
    "of HTML": "".join(f"&#{ord(one)};" for one in KEY),
    "of HTML, hexadecimal": KEY.replace("-", "&#x2D;").replace("/", "&#x2f;"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of a login": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
}


def _raw(words: str) -> bytes:
    """A right answer that holds `words` in every place, as they are."""
    text = json.dumps(
        {
            "model": "judge", "usage": {"W": 1},
            "choices": [{"message": {"content": "Safety: Safe W", "reasoning_content": "hm W"},
                         "finish_reason": "stop"}],
        }
    )  # fmt: skip
    return text.replace("W", words).encode()


def places(words: str) -> list[Fault]:
    said = '{"error": {"message": "bad W", "W": ["W"]}}'.replace("W", words).encode()
    page = f"<html><title>no {words}</title></html>".encode()
    model = f'{{"model": "{words}", "choices": [{{"message": {{"content": "x"}}}}]}}'.encode()
    end = f'{{"choices": [{{"message": {{}}, "finish_reason": "error {words}"}}]}}'.encode()
    return [
        body(_raw(words)), body(said), body(said, 400), body(said, 401), body(said, 500),
        body(page), body(page, 500), body(words.encode(), 400), body(model), body(end),
        body(b"", 302, Location=f"/{words.encode('ascii').decode()}"),
        body(b'{"error": "context length W"}'.replace(b"W", words.encode()), 400),
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_key_stands_nowhere_however_it_is_spelled(
    server: StubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spelling: str,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    words, texts = SPELLINGS[spelling], []
    for number, fault in enumerate(places(words)):
        server.always = fault
        try:
            found = _ask(_endpoint(server, key_env="MY_KEY", retries=0), tmp_path, f"q{number}")
            texts.append(repr(found))
        except EndpointError as error:
            texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
            texts.append(repr(error.__cause__))
    assert sum("Safety: Safe [key]" in text or "Safety: Safe" in text for text in texts) == 1
    texts += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [*capfd.readouterr()]
    for text in texts:
        assert KEY not in text and KEY not in text.encode().decode("unicode_escape")
        assert words[4:-4] not in text, text


def test_a_key_in_pieces_is_put_together_and_blotted(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    parts = [{"type": "text", "text": one} for one in ("Safe ", KEY[:9], KEY[9:])]
    server.always = message(content=parts)
    assert _ask(_endpoint(server, key_env="MY_KEY")).text == f"Safe {BLOT}"
    server.always = body(json.dumps({"a": KEY[:9], "b": KEY[9:]}).encode(), 500)
    with pytest.raises(EndpointError) as caught:
        _ask(_endpoint(server, key_env="MY_KEY", retries=0))
    assert KEY[:9] not in str(caught.value) and KEY[9:] not in str(caught.value)


def test_a_word_that_is_no_secret_leaves_answers_as_they_are(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("EMPTY", "1", "none"):
        monkeypatch.setenv("MY_KEY", key)
        server.always = answer(content=f"{key} of 111 is EMPTY, none")
        assert _ask(_endpoint(server, key_env="MY_KEY")).text == f"{key} of 111 is EMPTY, none"


def test_nothing_reads_without_end_where_a_server_is_only_looked_for(server: StubServer) -> None:
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.endpoint.client.CONNECT_S", 0.5)
        patch.setattr(
            "fixtures.stub_server._Handler.do_GET", lambda self: endless()(self, {}), raising=True
        )
        assert "a body without end" in _endpoint(server).absent()
    assert time.monotonic() - started < 5


def test_a_kept_answer_of_wrong_types_is_asked_again(server: StubServer, tmp_path: Path) -> None:
    server.always = None
    found = _ask(_endpoint(server), tmp_path)
    (line,) = (tmp_path / ANSWERS).read_text().splitlines()
    for name, value in (("text", 5), ("read", "x"), ("written", True), ("thought", -1),
                        ("model", None), ("text", "\ud800"), ("thinking", []),
                        ("read", 10**30)):  # fmt: skip
        (tmp_path / ANSWERS).write_text(json.dumps(json.loads(line) | {name: value}) + "\n")
        server.bodies = []
        assert _ask(_endpoint(server), tmp_path) == found
        assert len(server.bodies) == 1
    (tmp_path / ANSWERS).write_text("[" * 200_000 + "\n")
    assert _ask(_endpoint(server), tmp_path) == found


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)  # torch may have turned them off
    | st.text(st.characters(codec=None))
    | st.sampled_from([KEY, f"x{KEY}", KEY[:9], "stop", "judge", "error", 10**400, "\ud800"])
)
NAMES = st.sampled_from(
    ["choices", "message", "content", "text", "type", "finish_reason", "usage", "prompt_tokens",
     "completion_tokens", "model", "error", "reasoning_details", "refusal", KEY]
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(NAMES, some, max_size=4),
    max_leaves=8,
)
RIGHT = st.fixed_dictionaries(
    {
        "model": st.just("judge") | VALUES,
        "choices": st.lists(
            st.fixed_dictionaries(
                {"message": st.dictionaries(NAMES, VALUES) | VALUES, "finish_reason": VALUES}
            ),
            max_size=2,
        ),
        "usage": VALUES,
    }
)
BLOTTED = Blot(KEY)
ASKED = Server(url="http://127.0.0.1:1/v1", model="judge")


@given(
    data=st.one_of(RIGHT, VALUES).map(json.dumps) | st.text() | st.binary().map(repr),
    code=st.sampled_from([200, 200, 200, 204, 302, 400, 401, 404, 429, 500]),
    wait=st.text(max_size=12),
)
def test_any_answer_is_read_or_a_typed_fault(data: str, code: int, wait: str) -> None:
    headers = {"retry-after": wait, "location": wait}
    try:
        found = read_response(ASKED, code, headers, BLOTTED(data))
    except (TransientFault, EndpointError) as error:
        told = error.error if isinstance(error, TransientFault) else error
        assert isinstance(told, EndpointError)
        assert KEY not in BLOTTED.message(str(told))
    else:
        assert isinstance(found.text, str) and isinstance(found.thinking, str)
        assert found.model == "judge" and found.read >= 0
        assert KEY not in BLOTTED(found.text)


@given(before=st.text(), after=st.text(), twice=st.booleans())
def test_blotting_changes_nothing_but_the_key(before: str, after: str, twice: bool) -> None:
    text = before + KEY + (KEY if twice else "") + after
    assert BLOTTED(text) == text.replace(KEY, BLOT)
    assert BLOTTED(before) == before

"""What comes from outside and is kept or shown: endpoints' answers, and texts that are printed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fixtures.stub_modes import ANSWERED, MODES, SECONDS
from fixtures.stub_server import Fault, StubServer

from benchmarks.field_cases import Case
from holdfast import errors
from holdfast.endpoint import Endpoint, Server
from holdfast.errors import EndpointError
from holdfast.progress import Silent, console
from holdfast.report import harmless
from holdfast.types import Message
from tests import test_printing
from tests.endpoint import test_modes

KEY_ENV = "HOLDFAST_CASES_KEY"
Run = Callable[[Path], str | None]


def cases() -> Iterator[Case]:
    """Both families."""
    for name, (fault, expected) in MODES.items():
        yield Case(
            "endpoint answers", name, _asked(fault, expected),
            must_be_refused=expected != ANSWERED, must_work=expected == ANSWERED, exits=(1, 3),
        )  # fmt: skip
    for spelling, words in test_modes.SPELLINGS.items():
        for number, fault in enumerate(test_modes.places(words)):
            name = f"key {spelling} {number}"
            yield Case("endpoint answers", name, _blotted(fault, words), exits=(1, 3))
    for text in test_printing.HOSTILE:
        for way, run in (("terminal", _printed), ("json", _json), ("markdown", _markdown)):
            yield Case("printed text", f"{way} {text[:20]!a}", run(text), must_work=True)


def _asked(fault: Fault, expected: str) -> Run:
    def run(folder: Path) -> str | None:
        seconds = SECONDS if expected == "slow" else 5.0
        with StubServer() as stub:
            stub.always = fault
            found = _ask(stub, folder, timeout_s=seconds)
            if found.says_something() and _ask(stub, folder, timeout_s=seconds) != found:
                return "the answer is not kept as it came"
        return None

    return run


def _ask(stub: StubServer, folder: Path, **settings: Any) -> Any:
    server = Server(url=stub.url, model="judge", retries=1, concurrency=1, **settings)
    one = Endpoint(server, 0.01)
    return one.ask([one.request([Message("user", "q")], 8)], folder, Silent())[0]


def _blotted(fault: Fault, words: str) -> Run:
    def run(folder: Path) -> str | None:
        import os

        os.environ[KEY_ENV] = test_modes.KEY
        told: list[str] = []
        with StubServer() as stub:
            stub.always = fault
            try:
                told.append(repr(_ask(stub, folder, key_env=KEY_ENV, timeout_s=5)))
            except EndpointError as error:
                told += [str(error), repr(error)]
        told += [one.read_text() for one in folder.rglob("*") if one.is_file()]
        leaks = [one for one in told if test_modes.KEY in one or words[4:-4] in one]
        return "the key stands in it" if leaks else None

    return run


def _printed(text: str) -> Run:
    def run(_: Path) -> str | None:
        page = io.StringIO()
        console(file=page, width=100).print(text, markup=False, highlight=False)
        error = str(errors.DataError(text, where=text, remedy=text))
        return _wrong(page.getvalue() + error, "\n")

    return run


def _json(text: str) -> Run:
    return lambda _: _wrong(errors.printable_json({text: [text]}), "")


def _markdown(text: str) -> Run:
    return lambda _: (
        _wrong(harmless.clean(text), "")
        or ("something lives in it" if test_printing.alive(harmless.clean(text)) else None)
    )


def _wrong(text: str, keep: str) -> str | None:
    return "a terminal obeys it" if test_printing.obeyed(text, keep) else None

"""Is a hub that cannot be reached noticed once and at once, and everything else said as it is?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import cli
from holdfast.errors import ModelError, Unreachable
from holdfast.memory.model import hub

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As if nobody had forbidden the hub, with an empty cache and nothing remembered."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv(hub.ASKED_BY_US, raising=False)
    monkeypatch.chdir(tmp_path)
    hub._down.cache_clear()
    yield
    os.environ.pop(hub.ASKED_BY_US, None)
    os.environ["HF_HUB_OFFLINE"] = "1"  # as the other tests have it
    hub._down.cache_clear()


class Session:
    """Stands for the hub's HTTP client; counts how often it is asked."""

    def __init__(self, wait: float = 0.0, error: Exception | None = None) -> None:
        self.wait, self.error, self.asked = wait, error, 0

    def head(self, *_: object, **__: object) -> None:
        self.asked += 1
        time.sleep(self.wait)
        if self.error is not None:
            raise self.error


def use(monkeypatch: pytest.MonkeyPatch, session: Session) -> Session:
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", lambda: session)
    return session


def cache(folder: Path, name: str) -> None:
    """A model in the hub's cache, as a download leaves it."""
    place = folder / "cache" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0a1b")
    (place / "snapshots" / "0a1b").mkdir(parents=True)
    (place / "snapshots" / "0a1b" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    "session", [Session(error=OSError("Name or service not known")), Session(wait=30)],
    ids=["no such host", "no answer"],
)  # fmt: skip
def test_a_hub_that_is_down_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    use(monkeypatch, session)
    started = time.monotonic()
    for name in ("org/one", "org/two", "org/three"):
        with pytest.raises(Unreachable, match="cannot be reached") as caught:
            hub.require(name)
        for word in ("HF_ENDPOINT", "HF_HUB_OFFLINE=1", f"hf download {name}", "local folder"):
            assert word in caught.value.remedy
    assert session.asked == 1 and hub.PATIENCE_S < 2
    assert time.monotonic() - started < 10, "an answer that takes 30 s was waited for"
    assert caught.value.exit_code == 3


def test_what_is_in_the_cache_is_used_and_the_client_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, Session(error=OSError("no route")))
    cache(tmp_path, "org/kept")
    hub.require("org/kept")
    assert constants.HF_HUB_OFFLINE is True
    assert os.environ["HF_HUB_OFFLINE"] == "1", "processes to come know it too"
    assert not hub.asked_offline(), "nobody asked for it"
    with pytest.raises(Unreachable, match="cannot be reached"):
        hub.require("org/other")


def test_it_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Session(error=OSError("no route")))
    assert "no route" in hub.down()
    use(monkeypatch, Session())
    assert "no route" in hub.down()
    later = time.monotonic() + hub.REMEMBERED_S
    monkeypatch.setattr("holdfast.memory.model.hub.time.monotonic", lambda: later)
    assert hub.down() == ""
    assert constants.HF_HUB_OFFLINE is False
    assert "HF_HUB_OFFLINE" not in os.environ


def test_who_forbids_the_hub_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = use(monkeypatch, Session())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cache(tmp_path, "org/kept")
    hub.require("org/kept")
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE forbids"):
        hub.require("org/other")
    assert session.asked == 0


def answer(kind: str, status: int) -> Exception:
    from huggingface_hub import errors

    response = SimpleNamespace(status_code=status, headers={}, request=None)
    made: Any = getattr(errors, kind)
    return made("no", response=response)


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (("GatedRepoError", 403), "consent to a licence", "hf auth login"),
        (("RepositoryNotFoundError", 404), "no such model", "check the name"),
        (("RevisionNotFoundError", 404), "no revision 'v9'", "check"),
        (("RemoteEntryNotFoundError", 404), "no config.json", "not an adapter"),
        (("HfHubHTTPError", 401), "answered 401", "hf auth login"),
        (("HfHubHTTPError", 503), "answered 503", "try again later"),
    ],
)
def test_what_the_hub_says_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: tuple[str, int], message: str, remedy: str
) -> None:
    use(monkeypatch, Session())

    def refuse(*_: object, **__: object) -> None:
        raise answer(*error)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(ModelError, match=message) as caught:
        hub.require("org/model", "v9")
    assert remedy in caught.value.remedy
    assert not isinstance(caught.value, Unreachable)


@pytest.mark.parametrize("said", ["modles/mine", "models/mien", "./models/mien"])
def test_a_mistyped_folder_is_told_from_a_hub_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    from holdfast import models
    from holdfast.config import ModelSpec
    from holdfast.models import skeleton

    (tmp_path / "models" / "mine").mkdir(parents=True)
    use(monkeypatch, Session(error=OSError("no route")))
    with pytest.raises(ModelError) as caught:
        skeleton.reach(models.reference(ModelSpec(id=said)))
    assert "did you mean" in str(caught.value) and "models/mine" in str(caught.value)


def test_compare_of_many_names_waits_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = use(monkeypatch, Session(error=OSError("no route")))
    names = ["org/base", *(f"org/tuned{number}" for number in range(5))]
    code = cli.call(["compare", *names, "--tasks", "lab_math", "--runs-dir", str(tmp_path / "r")])
    said = capsys.readouterr().err
    assert code == 3 and "HF_ENDPOINT" in said and "org/base" in said
    assert session.asked == 1
    assert not (tmp_path / "r").exists()


def test_a_dry_run_says_what_only_another_machine_can_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Session(error=OSError("no route")))
    line = ["compare", "org/base", "org/tuned", "--tasks", "lab_math", "--dry-run"]
    assert cli.call([*line, "--runs-dir", str(tmp_path / "r")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not checked: base: org/base" in said or "Not checked: org/base" in said
    assert "stages are done" in said

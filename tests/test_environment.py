"""What a run stands on, and the command that installs what is missing."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from holdfast import environment

METADATA = [
    "numpy<3,>=2.0",
    'torch<3,>=2.11; extra == "train"',
    "lm_eval<1,>=0.4.13; extra == 'lm-eval'",
    'httpx2<3,>=2.10; extra == "remote"',
    'tenacity<10,>=9.0 ; python_version >= "3.11" and extra == "remote"',
]


@pytest.fixture
def _metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "requires", lambda name: METADATA)


def _words(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:4] == [sys.executable, "-m", "pip", "install"], "into this interpreter"
    return words[4:]


@pytest.mark.usefixtures("_metadata")
def test_an_extra_is_installed_by_the_names_of_its_packages() -> None:
    assert _words(environment.install_command("remote")) == [
        "httpx2<3,>=2.10", "tenacity<10,>=9.0",
    ]  # fmt: skip
    assert _words(environment.install_command("train")) == ["torch<3,>=2.11"]
    assert _words(environment.install_command("remote", "tenacity")) == ["tenacity<10,>=9.0"]
    assert _words(environment.install_command("lm-eval", "lm-eval")) == ["lm_eval<1,>=0.4.13"]


def test_without_metadata_the_names_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(environment, "requires", missing)
    assert _words(environment.install_command("train", "torch", "trl")) == ["torch", "trl"]


def test_what_is_recorded_names_no_machine() -> None:
    about = environment.describe()
    assert set(about) == {"time", "platform", "devices", "versions"}
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert about["devices"]

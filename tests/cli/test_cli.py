"""The command line: what it says in words or JSON, and with which exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from holdfast import cli, environment
from holdfast.analysis.results import to_json
from holdfast.report.write import write_report
from holdfast.runs import records, run_folder, store

DOCS = ROOT / "docs"


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.call(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "--version")
    assert (code, re.match(r"holdfast \d+\.\d+\.\d+", out) is not None) == (0, True)
    code, out, _ = _call(capsys, "--help")
    assert code == 0
    assert "forgot" in out


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["run"], ["run", "x.yaml", "--frob"], ["report"], ["demo", "--quik"]],
)
def test_wrong_usage_is_three(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = _call(capsys, *arguments)
    assert code == 3
    assert err.startswith("Error: ")


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "run", "none.yaml", "--json")
    assert code == 3
    error = json.loads(out)["error"]
    assert error["type"] == "StudyError"
    assert "holdfast init" in error["remedy"]


def test_init_writes_a_study_and_never_over_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    code, out, _ = _call(capsys, "init", str(path), "--recipe", "lab")
    assert code == 0
    assert f"holdfast run {path} --dry-run" in out
    before = path.read_text()
    code, _, err = _call(capsys, "init", str(path))
    assert (code, "exists already" in err, path.read_text()) == (3, True, before)
    code, _, err = _call(capsys, "init", str(tmp_path / "x.yaml"), "--recipe", "hw7")
    assert (code, "did you mean 'hw6'" in err) == (3, True)


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = ("demo", "--quick", "--dry-run", "--all", "--runs-dir", str(tmp_path / "r"))
    code, out, _ = _call(capsys, *line)
    assert code == 0
    assert "train/replay/seed1126" in out
    assert "0 of 76 stages are done" in out
    code, out, _ = _call(
        capsys, "demo", "--quick", "--dry-run", "--json", "--runs-dir", str(tmp_path / "r")
    )
    assert len(json.loads(out)["stages"]) == 76
    assert not (tmp_path / "r").exists()


def _finished(folder: Path) -> Path:
    """A run folder that has results and no more."""
    from fixtures.report import build

    run_folder.open_run(folder)
    stats = folder / "stats"
    store.write_json(stats / "results.json", to_json(build()))
    made = {"fingerprint": "x", "identity": {}, "needs": {}, "started": "", "seconds": 1}
    files = {"files": records.files_of(stats), "summary": {}}
    store.write_sealed(stats / records.RECORD, {**made, **files})
    return folder


def test_report_writes_tables_and_opens_the_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    run, opened, there = _finished(tmp_path / "run"), list[str](), [True]
    monkeypatch.setattr(webbrowser, "open", lambda page: (opened.append(page), there[0])[1])
    code, _, err = _call(capsys, "report", str(run), "--csv", "--paper", "--open")
    assert code == 0 and "No browser" not in err
    page = run / "report" / "index.html"
    assert opened == [page.resolve().as_uri()]
    assert (page.parent / "figures.csv").is_file()
    assert (page.parent / "paper" / "final.tex").is_file()
    there[0] = False
    code, _, err = _call(capsys, "report", str(run), "--open")
    assert code == 0 and f"No browser was found; open {page.resolve().as_uri()}" in err
    for option in ("--csv", "--paper"):
        code, _, err = _call(capsys, "report", str(run), "--serve", option)
        assert (code, f"{option} writes files" in err) == (3, True)


def test_report_renders_again_without_torch(tmp_path: Path) -> None:
    from fixtures.report import build

    _finished(tmp_path / "run")
    code = (
        "import sys\nfrom holdfast.cli import call\n"
        f"code = call(['report', {str(tmp_path / 'run')!r}])\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Report: " in done.stdout
    page = (tmp_path / "run" / "report" / "index.html").read_text("utf-8")
    again = write_report(build(), tmp_path / "again").read_text("utf-8")
    assert len(page) == pytest.approx(len(again), rel=0.1)


def test_report_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = _call(capsys, "report", str(tmp_path))
    assert (code, "is not a run folder" in err) == (3, True)
    run_folder.open_run(tmp_path / "run")
    code, _, err = _call(capsys, "report", str(tmp_path / "run"))
    assert (code, "has no results yet" in err) == (3, True)


PLAN = ["plan", "--model", "qwen2.5-7b-instruct", "--dry-run"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--gpus", "2x24GiB"], 0, "Choice: data parallel"),
        (["--gpus", "2x16GiB", "--no-quantize"], 0, "layers split"),
        (["--gpus", "2x24GiB", "--lang", "zh"], 0, "数据并行"),
        (
            ["--gpus", "1x6GiB", "--strategy", "single"],
            2,
            "smallest change that would help: GPUs with",
        ),
        (["--gpus", "1x6GiB", "--method", "full"], 2, "not validated on a GPU"),
    ],
)
def test_plan(capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str) -> None:
    found, out, _ = _call(capsys, *PLAN, *more)
    assert found == code
    assert said in out


@pytest.mark.parametrize(
    "more",
    [["--gpus", "0x24GiB"], ["--gpus", "rtx4091"], ["--gpus", "2x24GiB", "--seq-len", "99999"],
     ["--gpus", "2x24GiB", "--micro-batch", "3"], ["--gpus", "2x24GiB", "--strategy", "magic"],
     ["--gpus", "2x24GiB", "--global-batch-size", "0"], ["study.yaml", "--gpus", "2x24GiB"]],
)  # fmt: skip
def test_wrong_plans(capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    code, out, err = _call(capsys, *PLAN, *more)
    assert code == 3
    assert "→" in err
    assert "Traceback" not in out + err


def test_plan_by_formula_needs_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys\nfrom holdfast.cli import call\n"
         f"code = call({[*PLAN, '--gpus', '2x24GiB', '--json']!r})\n"
         "sys.exit(code or 9 * ('torch' in sys.modules))"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["chosen"]["strategy"] == "ddp"
    assert value["rejected"] == [one for one in value["candidates"] if not one["fits"]]


def test_doctor_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "doctor", "--json")
    assert (code, json.loads(out)["versions"]["trl"]) == (0, version("trl"))
    assert (json.loads(out)["missing"], json.loads(out)["install"]) == ([], None)
    code, out, _ = _call(capsys, "schema")
    assert "Study" not in json.loads(out)["$defs"]
    assert json.loads(out)["properties"]["model"]


def test_doctor_says_what_installs_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environment.version

    def installed(name: str) -> str:
        if name in ("peft", "bitsandbytes"):
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(environment, "version", installed)
    code, out, _ = _call(capsys, "doctor")
    assert code == 0
    assert re.search(r"^peft +missing$", out, re.M)
    command = shlex.split(out.splitlines()[-1])
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert [word.partition(">")[0].partition("<")[0] for word in command[4:]] == [
        "peft", "bitsandbytes",
    ]  # fmt: skip


COMMANDS = ["", *(cli.named(one) for one in cli.COMMANDS)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_docs_show_the_real_help(
    capsys: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docs/cli.md` holds every --help; write it anew with
    `PYTHONPATH=tests python tests/cli/test_cli.py`."""
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = _call(capsys, *([command] if command else []), "--help")
    assert _folded(out) in _folded((DOCS / "cli.md").read_text("utf-8"))


def _folded(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    import os

    made = "Made by `PYTHONPATH=tests python tests/cli/test_cli.py`; a test keeps it true."
    parts = [f"# The command line\n\n{made}\n"]
    for name in COMMANDS:
        line = [sys.executable, "-m", "holdfast", *([name] if name else []), "--help"]
        shown = subprocess.run(
            line, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}
        ).stdout
        parts.append(
            f"## `{' '.join(['holdfast', name]).strip()}`\n\n```text\n{shown.strip()}\n```\n"
        )
    store.write_text(DOCS / "cli.md", "\n".join(parts))

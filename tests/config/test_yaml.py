"""Whatever a study file holds: a typed error that names the place, and nothing written; no hang."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest

from holdfast import study
from holdfast.cli import call
from holdfast.config import load
from holdfast.config.yaml_text import read_yaml
from holdfast.errors import StudyError, UsageError

GOOD = """\
name: tiny
model: lab
seeds: [1126]
tasks:
  lab_math: {role: target, items: 4, train_items: 8}
  lab_refuse: {items: 4}
train:
  lora: {r: 4}
  learning_rate: 1e-3
  max_steps: 2
  optim: adamw_torch
arms:
  sft: {}
"""
BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}' if n else 'lol'] * 9)}]\n" for n in range(9))
LONG = "a" * 300
TEXTS = {
    "a key twice": (GOOD + "seeds: [7]\n", r"'seeds' is given twice, first in line 3"),
    "a key twice, deep": (GOOD.replace("{r: 4}", "{r: 4, r: 8}"), r":8: .*'r' is given twice"),
    "an alias bomb": (BOMB + GOOD, r"more than 25,000 values"),
    "an alias of itself": (GOOD.replace("sft: {}", "sft: &a {data: [*a]}"), r"inside what it"),
    "an arm of all arms": (GOOD.replace("arms:\n", "arms: &a\n") + "  b: *a\n", "inside what it"),
    "an unknown alias": (GOOD.replace("sft: {}", "sft: *b"), r":13: .*undefined alias"),
    "deep lists": (GOOD.replace("{r: 4}", "[" * 200 + "]" * 200), r"40 levels deep"),
    "deep mappings": (GOOD + "x: " + "{a: " * 3000 + "1" + "}" * 3000, r"40 levels deep"),
    "an impossible date": (GOOD.replace("tiny", "2020-13-45"), r":1: .*'2020-13-45' is no date"),
    "a date as a name": (GOOD.replace("tiny", "2020-01-01"), r"the date 2020-01-01: put quotes"),
    "a tag that is none": (GOOD.replace("1e-3", "!!float abc"), r":9: .*'abc' is no float"),
    "a bool that is none": (GOOD.replace("1e-3", "!!bool maybe"), r":9: .*'maybe' is no bool"),
    "code": (GOOD.replace("tiny", "!!python/object/apply:os.system [ls]"), r":1: .*the tag"),
    "a set": (GOOD.replace("[1126]", "!!set {1, 2}"), r":3: .*the tag .*set"),
    "bytes": (GOOD.replace("tiny", "!!binary aGFsbG8="), r":1: .*the tag .*binary"),
    "a tag of one's own": (GOOD.replace("tiny", "!mine x"), r":1: .*the tag !mine"),
    "5,000 digits": (GOOD.replace("max_steps: 2", "max_steps: " + "9" * 5000), "too long a number"),
    "20 digits": (GOOD.replace("items: 4,", f"items: {10**19},"), "too long a number"),
    "base 60": (GOOD.replace("max_steps: 2", "max_steps: 1:30"), r"several ways .*base 60"),
    "an octal number": (GOOD.replace("max_steps: 2", "max_steps: 010"), r"an octal number"),
    "not a number": (GOOD.replace("1e-3", ".nan"), r"no finite number"),
    "infinity": (GOOD.replace("1e-3", ".inf"), r"no finite number"),
    "NaN in a sweep": (GOOD.replace("{}", "{train: {lr: [.nan]}}"), r"no finite number"),
    "a NUL in a text": (GOOD.replace("lab\n", '"a\\0b"\n', 1), r":2: .*character"),
    "half a character": (GOOD.replace("lab\n", '"\\ud800"\n', 1), r":2: .*character"),
    "a NUL byte": (GOOD + "\0", r"not valid YAML"),
    "no UTF-8": (b"name: \xff\xfe", r"not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), r"not UTF-8"),
    "tabs": (GOOD.replace("  lab_math", "\tlab_math"), r":5: .*'\\t'"),
    "two documents": (GOOD + "---\nname: b\n", r":14: .*another document"),
    "an empty file": ("", r"empty or not a mapping"),
    "a list": ("[1, 2]", r"empty or not a mapping"),
    "a word": ("hello", r"empty or not a mapping"),
    "a key of 1,000 letters": (GOOD + "k" * 1000 + ": 1\n", r"unknown key"),
    "a key with an escape": (GOOD + '"\\e[31mred": 1\n', r"\\x1b\[31mred: unknown key"),
    "a key like a type": (GOOD.replace("{r: 4}", "{str: 4}"), r"train\.lora\.str: unknown key"),
    "a key in brackets": (GOOD + '"a[0]": 1\n', r"a\[0\]: unknown key"),
    "a number as a key": (GOOD + "5: 1\n", r"keys are text"),
    "a key that is null": (GOOD + "~: 1\n", r"keys are text"),
    "a list as a key": (GOOD + "? [a]\n: 1\n", r"unhashable key"),
    "items without end": (GOOD.replace("items: 4,", "items: 999999999999,"), r"less than or equal"),
    "endless answers": (GOOD + "answer: {sampling: {max_new_tokens: 99999999999}}\n", "less than"),
    "a rank without end": (GOOD.replace("r: 4", "r: 99999999"), r"lora\.r: no matrix"),
    "seeds without end": (GOOD.replace("[1126]", f"{list(range(1001))}"), "at most 1000"),
    "asked without end": (GOOD + "answer: {repeats: 99999999}\n", r"answer\.repeats"),
    "a sweep without end": (
        GOOD.replace("{}", f"{{train: {{lr: {[n / 1e6 for n in range(1, 1200)]}}}}}"),
        r"1199 combinations",
    ),
    "an arm like a work folder": (GOOD + "  sft.tmp: {}\n", r"'sft\.tmp': ends like"),
    "an arm with a line break": (GOOD + '  "sft\\n": {}\n', r"arm name 'sft\\n'"),
    "an arm of 300 letters": (GOOD + f"  {LONG}: {{}}\n", r"100 letters at most, not 300"),
    "an arm with a slash": (GOOD + "  a/b: {}\n", r"arm name 'a/b'"),
    "an arm with a space": (GOOD + "  a b: {}\n", r"arm name 'a b'"),
    "an arm of dots": (GOOD + "  ..: {}\n", r"arm name '\.\.'"),
    "arms that differ in case": (GOOD + "  SFT: {}\n", r"differ in case only"),
    "an arm like the base": (GOOD + "  Base: {}\n", r"two arms are called"),
    "a sweep that makes a twin": (
        GOOD + "  a-lr0.1: {}\n  A: {train: {lr: [0.1, 0.2]}}\n", r"two arms are called 'A-lr0\.1'",
    ),
    "a task like a work folder": (GOOD.replace("lab_refuse:", "x.tmp:"), r"'x\.tmp': ends like"),
    "a study that climbs": (GOOD.replace("tiny", "../../x"), r"name: should be letters"),
    "a study of 300 letters": (GOOD.replace("tiny", LONG), r"at most 100"),
    "a study with an escape": (GOOD.replace("tiny", '"a\\e[31mb"'), r"name: .*\\x1b"),
    "somebody's home": (GOOD.replace("lab\n", "~nobody_here/x\n", 1), r"home folder of somebody"),
    "a path too long": (GOOD.replace("lab\n", f"./{LONG}\n", 1), r"more than 255 bytes"),
    "a model with an escape": (GOOD.replace("lab\n", '"a\\e[2J"\n', 1), r"cannot be printed"),
    "an empty method": (GOOD.replace("sft: {}", "sft: {data: [{}]}"), r"one method with"),
    "a mapping that is none": (GOOD.replace("sft: {}", "sft: !!map 3"), r"before something else"),
    "a key that is no text": (GOOD.replace("{r: 4}", "{1: 4}"), r":8: train\.lora\.1: keys are text"),
    "true as a number": (GOOD.replace("max_steps: 2", "max_steps: yes"), r"number, not true"),
    "more than a study": (GOOD + "#" * 600_000, r"more than 500,000 bytes"),
    "points without end": (
        GOOD.replace("[1126]", f"{list(range(40))}").replace("max_steps: 2", "max_steps: 1000\n"
        "  save_steps: 1"), r"measurements \(models times tasks\); 30,000 is the most",
    ),
    "trainings without end": (
        GOOD.replace("[1126]", f"{list(range(999))}") + "  b: {}\n  c: {}\n", r"more than 2,000",
    ),
    "checkpoints without end": (
        GOOD.replace("max_steps: 2", "max_steps: 9999999\n  save_steps: 1"), "10,000 is the most",
    ),
    "a merge of a number": (GOOD.replace("sft: {}", "sft: {<<: 3}"), r"merging"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_a_bad_file_is_refused_with_its_place(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, wanted = TEXTS[kind]
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code = call(["run", str(path), "--dry-run", "--runs-dir", str(tmp_path / "runs")])
    said = capsys.readouterr()
    assert code == 3, said.err
    assert said.err.startswith("Error: ") and "study.yaml" in said.err
    assert "→" in said.err, "every error names a remedy"
    assert "\x1b" not in said.err and "\0" not in said.err
    assert len(said.err) < 3000
    assert re.search(wanted, said.err), said.err
    assert [one.name for one in tmp_path.iterdir()] == ["study.yaml"], "nothing is written"


OVERRIDES = [
    ("train.str=1", r"train\.str: unknown key"),
    ("arms.sft.train.int=1", r"train\.int: unknown key"),
    ("seeds[0]=1", r"seeds\[0\]: unknown key"),
    ("train[lr]=1", r"unknown key"),
    ("train.lora.[r]=1", r"unknown key"),
    ("__class__=1", r"__class__: unknown key"),
    ("train.model_fields=1", r"model_fields: unknown key"),
    ("train..lr=1", r"is not an override"),
    ("=1", r"is not an override"),
    (".=1", r"is not an override"),
    ("train.lr", r"is not an override"),
    ("seeds.0=1", r"seeds is not a section"),
    ("train.lr=[", r"not valid YAML"),
    ("train.lr=!!float x", r"is no float"),
    ("train.lr=.inf", r"no finite number"),
    ("train.lora={r: 1, r: 2}", r"given twice"),
    ("name=&a [*a]", r"inside what it names"),
    ("train.max_steps=" + "9" * 5000, r"too long a number"),
    ("model=~nobody_here/x", r"home folder"),
    ("tasks.lab_math.path=" + "x" * 5000, r"longer than 4096"),
    ("a" * 5000 + "=1", r"unknown key"),
    ("", r"an empty setting: is not an override"),
    ("a." * 1000 + "b=1", r"is not an override"),
    ("train.lora={1: 2}", r"train\.lora\.1: keys are text"),
    ("arms.sft.train.lora={1: 2}", r"keys are text"),
    ("train.max_steps=true", r"should be a number, not true"),
    ("seeds=[true]", r"should be a number"),
    ("tasks.lab_math.limit=false", r"should be a number, not false"),
    ("arms.sft.train.lr=[1e-3, 0.001]", r"tries one setting twice"),
    ("arms.sft.train.optim=[x.tmp, b]", r"makes an arm called 'sft-optim-x\.tmp': ends like"),
    ("name=con", r"name of a device"),
    ("name=x.tmp", r"ends like"),
    ("arms.aux={}", r"arm name 'aux': is the name of a device"),
    ("tasks.nul={kind: lab_math}", r"task name 'nul'"),
    ("arms={sft: !!map 3}", r"stands before something else"),
    ("train.lora.target_modules=(a", r"no regular expression"),
    ('train.lora.rank_pattern={"(.*)*(.*)*(.*)*x": 4}', r"does not come to an end"),
    ("hardware.gpus=1x" + "9" * 400 + "GiB", r"cannot be used"),
    ("model={id: lab, chat_template: /dev/zero}", r"no regular file"),
]


@pytest.mark.parametrize(("override", "wanted"), OVERRIDES)
def test_bad_settings_of_the_command_line(override: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(UsageError, match=wanted) as caught:
        study.prepare(load.load(path, [override]), tmp_path / "run")
    assert caught.value.where
    assert len(str(caught.value)) < 3000
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody_here/s.yaml", "\ud800", "."])
def test_files_that_cannot_be(name: str) -> None:
    with pytest.raises(StudyError) as caught:
        load.load(name)
    assert caught.value.remedy


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.yaml")
    with pytest.raises(StudyError, match="is no file"):
        load.load(tmp_path / "s.yaml")


def test_what_is_sound_is_read_as_yaml_means_it() -> None:
    text = """\
a: &shared {x: 1, y: [1.5, -2, 1_000]}
b: *shared
c: {<<: *shared, x: 2}
d: 2024-07-26
e: "a\\tb"
f: no
g: 0
h: 007a
"""
    value, lines = read_yaml(text, "s.yaml", "")
    shared = {"x": 1, "y": [1.5, -2, 1000]}
    assert value == {
        "a": shared, "b": shared, "c": {**shared, "x": 2}, "d": datetime.date(2024, 7, 26),
        "e": "a\tb", "f": False, "g": 0, "h": "007a",
    }  # fmt: skip
    assert lines[("c", "x")] == 3 and lines[("a", "y", 1)] == 1


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load.load(path).name == "tiny"

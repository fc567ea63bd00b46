"""Chinese in whatever is put together: parts of sentences, catalogues, studies, errors, tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fixtures.pieces import catalogued, of_cards, pieces
from fixtures.sentences import HOLE
from rich.cells import cell_len

from holdfast import cli
from holdfast.config import recipes
from holdfast.progress import translation
from holdfast.progress.rendered import card_in_language, study_in_language
from holdfast.progress.translation import CLAUSE, Said, told

PIECES = pieces()
CATALOGUE = catalogued()
QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\{[^}]*\}")


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    monkeypatch.setenv("COLUMNS", "80")


def _table(name: str) -> dict[str, str]:
    found = json.loads((translation.HERE / name).read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def test_every_text_that_is_put_into_a_sentence_has_its_chinese() -> None:
    lacking = [f"{where}: {text!r}" for text, where in PIECES.items() if told(text) == text]
    assert not lacking, "translate these in zh-pieces.json:\n" + "\n".join(lacking)
    assert not set(_table("zh-pieces.json")) - set(PIECES), "nothing says these any more"


def test_the_catalogues_are_chinese() -> None:
    table = _table("zh-catalogue.json")
    assert set(CATALOGUE) == set(table), "exactly these, in zh-catalogue.json"


@pytest.mark.parametrize("path", sorted(translation.HERE.glob("zh*.json")), ids=lambda p: p.stem)
def test_what_is_put_in_is_said_once(path: Path) -> None:
    for english, other in _table(path.name).items():
        count, numbers = english.count(HOLE), re.findall(f"{HOLE}([1-9]?)", other)
        assert len(numbers) == count, english
        assert not any(numbers) or sorted(numbers) == [str(n + 1) for n in range(count)], english


@pytest.mark.parametrize(
    ("english", "other"),
    [
        # half a sentence is not taken for what is put into another
        ("How many prompts nobody ever knew, at most.", None),
        ("replies/a: 3 of 9 answers, 4 tokens/s, about 2 min left; 1 of 9 stages done",
         "replies/a: 3 / 9 个回答，4 词元/秒，约剩 2 min；已完成 1 / 9 个阶段"),
        ("A model may be shipped if it gains on a and loses at most 5 points on b and c, each by "
         "the worse end of its interval.",
         "模型可以发布的条件：在 a 上有提高，并且在 b 和 c 上最多损失 5 个百分点，各按其区间较差"
         "的一端。"),
        # two holes side by side
        ("no task is called 'x'", "没有名为 'x' 的任务"),
        ("no task is called 'x' (did you mean 'y'?)", "没有名为 'x' 的任务（是不是 'y'？）"),
        # a line of a file and the keys of a setting
        ("line 4: train.lora.r: input should be a valid integer, not 'x'",
         "第 4 行：train.lora.r: 应为整数，而不是 'x'"),
        ("train.nope: unknown key", "train.nope：未知的键"),
        ("x: a text of a stranger", "x: a text of a stranger"),
    ],
)  # fmt: skip
def test_what_is_put_together(english: str, other: str | None) -> None:
    assert told(english) == (english if other is None else other)


def test_what_is_said_already_stays() -> None:
    assert told("seed 3") == "种子 3"
    assert told(Said("seed 3")) == "seed 3"


@pytest.mark.parametrize("file", recipes.recipes().values(), ids=lambda file: file.stem)
def test_recipes_are_explained_in_chinese(file: Path) -> None:
    english = file.read_text("utf-8")
    text = study_in_language(english)
    assert [line.partition("# ")[0].rstrip() for line in text.split("\n")] == [
        line.partition("# ")[0].rstrip() for line in english.split("\n")
    ], "nothing but comments changes"
    for line in text.split("\n"):
        words = QUOTED.sub("", line.partition("# ")[2])
        assert not CLAUSE.search(words) or "holdfast " in words, line


def test_a_study_is_written_with_chinese_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their.yml").write_text(
        "base_model: a/b\ndatasets: [{path: x/y}]\nadapter: lora\nmicro_batch_size: 1\nrl: dpo\n"
    )
    assert cli.call(["init", "mine.yaml", "--model", "lab"]) == 0
    assert cli.call(["import", "their.yml", "theirs.yaml"]) == 0
    said = capsys.readouterr().out
    assert "偏好和奖励是组的补救方法" in said and "没有对应" in said
    for name in ("mine.yaml", "theirs.yaml"):
        text = (tmp_path / name).read_text("utf-8")
        for line in text.split("\n")[1:]:
            words = line.partition("# ")[2]
            assert not words or re.search(r"[\u4e00-\u9fff]", words), line
    assert cli.call(["run", "mine.yaml", "--dry-run", "--only", "budget"]) == 0


WRONG = """\
name: x
model: lab
tasks: {lab_math: {role: target}}
train: {learning_rate: fast, lora_r: x, num_train_epochs: -1, packing: maybe, method: qlorra,
  output_dir: x, nope: 1, warmup_ratio: 3}
arms: {a: 3}
seeds: []
ship: {retain: {b: x}}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks"], ["methods"], ["judges"], ["recipes"], ["power"], ["power", "--items", "0"],
        ["power", "--margin", "2"], ["run", "wrong.yaml"], ["run"], ["nothing"], ["tasks", "gone"],
        ["run", "wrong.yaml", "--foo"], ["run", "wrong.yaml", "--on", "moon"], ["doctor"],
        ["methods", "replya"], ["judges", "remote"], ["tasks", "lab_refuse"], [],
    ],
    ids=" ".join,
)  # fmt: skip
def test_pages_and_errors_are_chinese(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    cli.call(arguments)
    said = capsys.readouterr()
    lines = [*said.out.splitlines(), *said.err.splitlines()]
    assert lines
    for line in lines:
        words = QUOTED.sub("", line)
        assert not CLAUSE.search(words) or re.search("arXiv|doi|known|file.py", line), line


def test_keys_of_a_plug_in_are_never_translated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["tasks", "lab_refuse"]) == 0
    assert "  seed [0]" in capsys.readouterr().out.splitlines()


def test_a_table_has_its_cells_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["power"]) == 0
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert {cell_len(row) for row in rows} == {cell_len(head)}
    ends = [cell_len(head[: found.end()]) for found in re.finditer(r"\S+", head)]
    for row in rows:
        assert [cell_len(row[: found.end()]) for found in re.finditer(r"\S+", row)][1:] == ends[1:]


def test_every_sentence_of_a_card_has_its_chinese() -> None:
    lacking = [text for text in of_cards() if told(text) == text]
    assert not lacking, "translate these in zh-card.json:\n" + "\n".join(lacking)


CARD = """\
---
base_model: a/b
library_name: peft
---

# mine: sft, seed 1, step 2

a/b, fine-tuned on x in the study `mine` with Holdfast. The adapter alone; it goes on top of the \
base model. The study is in `study.yaml`, the decision with all its figures in `decision.json`.

**Exported against this answer, because that was asked for.**

| task | figure | untouched model | in the study | as exported | difference, points |
|---|---|---|---|---|---|
| x (target) | exact match | 50.0 % | 60.0 % | 60.0 % | +10.0 [1.0, 19.0] better |

- x is by the judge y. Another judge gives other figures, and none of them is a safety grade or a \
certificate.

```python
from peft import PeftModel  # The adapter alone; it goes on top of the base model.
```
"""


def test_a_card_is_chinese_but_for_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    said = card_in_language(CARD)
    front, prose, code = said[:44], *said[44:].split("```python")
    assert front.startswith("---\nbase_model: a/b\nlibrary_name: peft\n---")
    assert code == CARD.split("```python")[1]
    assert not CLAUSE.search(prose), prose
    assert "| x（目标） | 完全匹配 | 50.0 % |" in prose
    assert "**与这个结论相反仍然导出，因为有此要求。**" in prose
    monkeypatch.setenv("HOLDFAST_LANG", "en")
    assert card_in_language(CARD) == CARD


@pytest.mark.parametrize(
    ("english", "other"),
    [
        ("t: 90% of the replies of a could not be scored; there is no figure. Likewise over 5% of "
         "the replies of two, three.",
         "t：a 的回答中有 90% 无法评分；没有数字。two, three 的回答中同样有超过 5% 如此。"),
        ("t: 12% of the replies of a (12 of 99) were withheld by the server's filter; they are "
         "unscored. Likewise some of the replies of base, b at step 3.",
         "t：a 的回答中有 12%（99 条中的 12 条）被服务器的过滤器拦下；它们未评分。base，b（第 3 "
         "步） 的回答中同样有一些如此。"),
        ("After 2 stages sft is right on 45.0 % [40.0, 50.0] of the items of their tasks, which "
         "weigh alike. The highest average has kl: +2.0 points [+0.1, +4.0] against sft.",
         "2 个阶段之后，sft 在这些任务（权重相同）的题目上答对 45.0 % [40.0, 50.0]。平均值最高的"
         "是 kl：相对 sft 为 +2.0 个百分点 [+0.1, +4.0]。"),
        ("tasks.a: 3 of 60 training examples hold characters that the tokenizer does not know, and "
         "which are learned as <unk> (the first is train-0).",
         "tasks.a：60 个训练样本中有 3 个含有分词器不认识的字符，它们会被学成 <unk>（第一个是 "
         "train-0）。"),
    ],
)  # fmt: skip
def test_notes_of_several_models_stay_in_one_piece(english: str, other: str) -> None:
    assert told(english) == other

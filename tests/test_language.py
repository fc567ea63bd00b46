"""What is printed in Chinese: each sentence of the source has its own, and fits where it stands."""

from __future__ import annotations

import json
import re
import time

import pytest
from fixtures.sentences import HOLE, sentences
from rich.cells import cell_len

from holdfast import cli
from holdfast.progress import translation
from holdfast.progress.translation import told

SENTENCES = sentences()
TABLE = json.loads((translation.HERE / "zh.json").read_text("utf-8"))
WORDS = json.loads((translation.HERE / "zh-words.json").read_text("utf-8"))


def test_every_sentence_has_its_chinese_and_none_is_left_of_others() -> None:
    lacking = [f"{where}: {text!r}" for text, where in SENTENCES.items() if text not in TABLE]
    assert not lacking, "translate these in progress/translations/zh.json:\n" + "\n".join(lacking)
    stale = [text for text in TABLE if text not in SENTENCES]
    assert not stale, f"nothing says these any more: {stale}"


@pytest.mark.parametrize("table", [TABLE, WORDS], ids=["sentences", "words"])
def test_what_is_put_in_is_all_said(table: dict[str, str]) -> None:
    for english, chinese in table.items():
        count, numbers = english.count(HOLE), re.findall(f"{HOLE}([1-9]?)", chinese)
        assert len(numbers) == count, english
        assert not any(numbers) or sorted(numbers) == [str(n + 1) for n in range(count)], english
        assert not chinese.isascii() or chinese == english, english


def test_a_sentence_is_found_whatever_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    for english, chinese in TABLE.items():
        if english.replace(HOLE, "").count(" ") < 2:
            continue  # several may say the same words
        put = [f"<{number}>" for number in range(english.count(HOLE))]
        parts = english.split(HOLE)
        text = parts[0] + "".join(one + part for one, part in zip(put, parts[1:], strict=True))
        found = told(text)
        assert all(one in found for one in put), english
        assert HOLE not in found
        assert found != text or english == chinese, english


def test_the_longest_sentence_that_fits_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    assert told("cannot be read: No such file or directory") == "无法读取：没有这个文件或文件夹"
    assert told("cannot be read: <x>") == "无法读取：<x>"
    assert told("a line that nobody wrote") == "a line that nobody wrote"


def test_a_number_puts_what_is_said_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    assert told("3 of 9 examples are longer than max_length 8 (the longest has 12 tokens)") == (
        "9 个样本中有 3 个比 max_length 8 长（最长的有 12 个词元）"
    )


@pytest.mark.parametrize(
    "arguments", [["--lang", "zh", "run", "gone.yaml"], ["run", "gone.yaml", "--lang=zh"]]
)
def test_an_error_is_said_in_chinese_and_json_is_not(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(arguments) == 3
    said = capsys.readouterr().err
    assert said.startswith("错误：") and "gone.yaml" in said, said
    assert cli.call([*arguments, "--json"]) == 3
    assert not re.search(r"[\u4e00-\u9fff]", capsys.readouterr().out)
    assert cli.call(["run", "gone.yaml"]) == 3
    assert capsys.readouterr().err.startswith("Error: "), "the language ends with its command"


def test_the_locale_decides_where_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOLDFAST_LANG", raising=False)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert cli.call(["run", "gone.yaml"]) == 3
    assert "错误" in capsys.readouterr().err
    assert cli.call(["run", "gone.yaml", "--lang", "en"]) == 3
    assert "Error" in capsys.readouterr().err


def test_a_language_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["doctor", "--lang", "tlh"]) == 3
    assert "'tlh'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *map(cli.named, cli.COMMANDS)])
def test_the_pages_of_help_are_chinese_and_fit(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.call([*command.split(), "--help", "--lang", "zh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("用法：holdfast")
    assert max(map(cell_len, lines)) <= 80
    for line in lines:
        words = re.split(" {2,}", line.strip())[-1]
        assert re.search(r"[\u4e00-\u9fff]", line) or not re.search(r"[a-z]+ [a-z]+ [a-z]", words)


def test_cells_stay_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    head, row = told("Options          Commands  x"), told("1                2         3")
    assert [cell_len(head[: head.index(one)]) for one in ("命令", "x")] == [
        cell_len(row[: row.index(one)]) for one in "23"
    ]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        (
            "No model surely meets the rule. The nearest is sft, seed 1, step 2: it leaves open "
            "whether it gains on a and loses at most 2 points on b (change in good answers, in "
            "points, 95 % intervals: a 0.0 [−1.0, +1.0]).",
            "没有模型确定符合规则。最接近的是 sft，种子 1，第 2 步：尚不清楚它是否在 a 上有提高，"
            "并且在 b 上最多损失 2 个百分点（好回答的变化，百分点，95 % 区间："
            "a 0.0 [−1.0, +1.0]）。",
        ),
        (
            "sft gained 9.1 points [1.0, 17.0] on a and lost 3.0 points [1.0, 5.0] on b. No model "
            "may be shipped yet; the nearest is x.",
            "sft 在 a 上提高了 9.1 个百分点 [1.0, 17.0]，在 b 上损失了 3.0 个百分点 [1.0, 5.0]。"
            "目前还没有模型可以发布；最接近的是 x。",
        ),
        ("3 of 9 stages are done.", "已完成 3 / 9 个阶段。"),
        (
            "Note: One training seed: the intervals speak of these very trainings; another seed "
            "may change more than they say.",
            "说明：只有一个训练种子：区间只针对这几次训练；换一个种子的变化可能更大。",
        ),
    ],
)
def test_findings_are_said_in_chinese(
    english: str, chinese: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    assert told(english) == chinese


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "b of c " * 400 + "replies of d", "x" + " points" * 5000, "lost " * 300,
        "; ".join(["a and b" * 9] * 99), "no table has " + "▢" * 900,
    ],
)  # fmt: skip
def test_what_a_stranger_wrote_takes_no_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "zh")
    began = time.process_time()
    told(text)
    told(text[:1400])
    assert time.process_time() - began < 2

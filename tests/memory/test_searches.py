"""The most that fits, and the GPUs that would do: found by halving, true at the edge."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from fixtures.timing import worked

from holdfast.cli import call
from holdfast.errors import UsageError
from holdfast.memory.hardware.card_names import card
from holdfast.memory.planner.found import Found
from holdfast.memory.planner.gpu_search import find_gpus
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.searches import find_batch, find_length

ASKED = PlanRequest("Qwen/Qwen2.5-7B-Instruct", "1x24GiB", trace=False)


def _flags(found: Found) -> dict[str, str]:
    assert found.fits
    return found.flags()


@pytest.mark.parametrize("strategy", ["single", "qlora"])
def test_the_longest_examples_fit_and_a_step_longer_do_not(strategy: str) -> None:
    asked = replace(ASKED, strategy=strategy)
    found = find_length(asked)
    assert found.best is not None and found.best.candidate.plan.strategy == strategy
    longest = int(_flags(found)["--seq-len"])
    assert longest == found.best.value > 2048 and longest % 64 == 0
    assert plan(replace(asked, seq_len=longest)).fits
    assert not plan(replace(asked, seq_len=longest + 64)).fits


def test_a_model_that_reads_less_than_would_fit_is_read_to_its_end() -> None:
    found = find_length(replace(ASKED, model="microsoft/Phi-3-mini-4k-instruct", gpus="h200"))
    assert found.best is not None and found.best.value == 4096
    assert any(getattr(one, "key", "") == "all_positions" for one in found.notes)


def test_strategies_are_told_apart_and_the_answer_needs_no_host_memory() -> None:
    found = find_length(replace(ASKED, gpus="2x24GiB"))
    longest = {one.candidate.plan.strategy: one.value for one in found.rows}
    assert longest["qlora"] > longest["single"] and "ddp" in longest and "offload" in longest
    assert [one.value for one in found.rows] == sorted(longest.values(), reverse=True)
    assert found.best is not None and found.best.candidate.plan.placement != "offload"


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    asked = replace(ASKED, seq_len=2048, strategy="single")
    found = find_batch(asked)
    assert found.best is not None
    most = found.best.value
    assert _flags(found) == {"--micro-batch": str(most), "--global-batch-size": str(most)}
    assert plan(replace(asked, micro_batch=most, global_batch=most)).fits
    assert not plan(replace(asked, micro_batch=most + 1, global_batch=most + 1)).fits


def test_a_global_batch_that_is_given_is_kept() -> None:
    found = find_batch(replace(ASKED, gpus="2x24GiB", global_batch=12, strategy="ddp"))
    assert found.best is not None and 12 % (2 * found.best.value) == 0
    assert found.best.candidate.plan.global_batch == 12


def test_the_smallest_cards_hold_it_and_the_next_smaller_do_not() -> None:
    asked = replace(ASKED, gpus=None, seq_len=2048, method="lora", quantize=False)
    found = find_gpus(asked)
    assert found.best is not None
    best = found.best
    (gpus,) = _flags(found).values()
    assert plan(replace(asked, gpus=gpus)).fits
    assert [one.value for one in found.rows] == sorted(one.value for one in found.rows)
    for one in found.rows:
        assert plan(replace(asked, gpus=one.gpus)).fits, one.gpus
        assert len(one.candidate.plan.gpus) == one.count
        assert one.candidate.plan.placement != "offload"
        assert all(card(name) for name in one.names)
    smaller = "RTX A4000"
    assert best.count == 1 and not plan(replace(asked, gpus=smaller, strategy="single")).fits


def test_gpus_are_chosen_from_what_is_named() -> None:
    asked = replace(ASKED, gpus="4090,a100-80gb,2x3090", method="full", global_batch=8)
    found = find_gpus(asked)
    assert found.rows and {one.names[0] for one in found.rows} <= {
        "RTX 4090", "RTX 3090", "A100-80GB PCIe"}  # fmt: skip
    nothing = find_gpus(replace(asked, gpus="gtx 1060 3gb", model="llama-3.1-70b"))
    assert not nothing.fits and nothing.best is None and nothing.flags() == {}
    for slices in ("a100-80gb 3g.40gb", "2x1g.10gb"):
        with pytest.raises(UsageError, match="slices"):
            find_gpus(replace(asked, gpus=slices))


def test_gpus_here_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.memory.hardware.devices import parse
    from holdfast.memory.planner import request

    asked: list[int] = []

    def detect() -> object:
        asked.append(1)
        return parse("1x24GiB")

    monkeypatch.setattr(request, "detect", detect)
    assert (
        find_length(replace(ASKED, gpus=None)).fits and find_batch(replace(ASKED, gpus=None)).fits
    )
    assert len(asked) == 2


def test_searches_are_quick() -> None:
    find_length(ASKED)
    assert worked(lambda: find_length(ASKED)) < 0.5
    assert worked(lambda: find_batch(ASKED)) < 0.5
    assert worked(lambda: find_gpus(replace(ASKED, gpus=None))) < 2


@pytest.mark.parametrize("flag", ["--find-gpus", "--find-length", "--find-batch"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_is_found_is_said_with_a_command_that_plans_it(
    flag: str, lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["plan", "--model", "qwen2.5-7b", "--gpus", "rtx4090", flag]
    assert call([*line, "--lang", lang]) == 0
    text = capsys.readouterr().out.replace("\\\n", " ")
    assert ("By formula, never by a trace" if lang == "en" else "未做追踪") in text
    assert call([*line, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["schema"] == 1 and value["kind"] == flag[2:].replace("-", "_")
    assert value["fits"] and value["best"] in value["rows"] and value["source"] == "formula"
    following = shlex.split(value["next"])
    assert following[0] == "holdfast" and flag not in following and "--json" not in following
    assert call([*following[1:], "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["fits"]


def test_a_study_is_searched_for_its_hardest_arm(capsys: pytest.CaptureFixture[str]) -> None:
    from fixtures.paths import ROOT

    file = str(ROOT / "examples" / "qwen2.5-7b-2x24g.yaml")
    assert call(["plan", file, "--find-gpus", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["model"] == "Qwen/Qwen2.5-7B-Instruct" and len(value["rows"]) > 3
    assert value["next"].startswith(f"holdfast plan {file} --gpus ")


def test_what_does_not_fit_exits_2_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "--model", "llama-3.1-70b", "--gpus", "1x8GiB", "--strategy", "single"]
    for flag, said in (("--find-length", "Not even examples of 64 tokens fit"),
                       ("--find-batch", "Not even one example of 1,024 tokens fits"),
                       ("--find-gpus", "None of these sets holds it")):  # fmt: skip
        assert call([*line, flag]) == 2
        assert said in capsys.readouterr().out
        assert call([*line, flag, "--json"]) == 2
        value = json.loads(capsys.readouterr().out)
        assert not value["fits"] and value["best"] is None and value["next"] is None


@pytest.mark.parametrize(
    "more",
    [["--find-gpus", "--find-length"], ["--find-length", "--seq-len", "512"],
     ["--find-batch", "--micro-batch", "2"], ["--find-gpus", "--export", "x.py"],
     ["--find-gpus", "--all"], ["--find-batch", "--examples", "5"]],
)  # fmt: skip
def test_what_does_not_go_together(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "--model", "qwen2.5-7b", "--gpus", "24GiB", *more]) == 3
    assert "does not go with" in capsys.readouterr().err

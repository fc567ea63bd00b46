"""What lies on the GPUs beside a training, and what the margins of a plan rest on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.config import load
from holdfast.errors import UsageError
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import card, parse
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner import evidence
from holdfast.memory.planner.inference import left_beside
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.strategies import RIGID, RuntimeOverheads
from holdfast.train.planning import after_training, plan_study

TWO = parse("24GiB,16GiB")


def test_a_server_takes_its_share_of_every_gpu() -> None:
    gpus, said = left_beside(TWO, ["vllm=0.25"])
    assert [gpu.free_bytes for gpu in gpus] == [18 * GIB, 12 * GIB]
    assert [gpu.total_bytes for gpu in gpus] == [24 * GIB, 16 * GIB]
    assert "vLLM with 0.25" in said[0]


def test_a_judge_lies_where_most_is_free_and_things_add_up() -> None:
    (first, second), said = left_beside(TWO, ["2GiB", "judge=Qwen/Qwen3-0.6B"])
    assert second.free_bytes == 14 * GIB
    assert 18 * GIB < first.free_bytes < 22 * GIB and "judge Qwen/Qwen3-0.6B" in said[1]
    (less, _), _ = left_beside(TWO, ["2GiB", "judge=Qwen/Qwen3-0.6B:nf4"])
    assert less.free_bytes > first.free_bytes


def test_what_is_in_use_already_is_not_taken_twice() -> None:
    busy = tuple(replace(gpu, free_bytes=gpu.free_bytes - 6 * GIB) for gpu in TWO)
    assert [gpu.free_bytes for gpu in left_beside(busy, ["6GiB"])[0]] == [18 * GIB, 10 * GIB]


@pytest.mark.parametrize(
    "text",
    ["", "x", "vllm", "vllm=", "vllm=1.5", "vllm=-1", "judge=", "=m", "judge=m:int3", "99GiB"],
)
def test_what_cannot_lie_there_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        left_beside(TWO, [text])
    assert caught.value.remedy


def test_a_cpu_has_nothing_beside_it() -> None:
    with pytest.raises(UsageError, match="GPUs"):
        plan(PlanRequest("qwen2.5-0.5b", "cpu", trace=False, beside=("6GiB",)))


def test_a_study_leaves_room_and_says_what_comes_after(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: s\nmodel: Qwen/Qwen2.5-7B-Instruct\nhardware: {gpus: 1x48GiB, beside: [vllm=0.5]}\n"
        "tasks: {a: {kind: ailuminate, judge: {qwen3guard: {model: Qwen/Qwen3-0.6B}}},"
        " g: {kind: gsm8k, role: target}}\n"
        "arms: {plain: {data: g}}\n",
        encoding="utf-8",
    )
    study = load.load(file)
    report = plan_study(study)
    assert report.comparison.gpus[0].free_bytes == 24 * GIB
    assert any("vLLM with 0.5" in note for note in report.notes)
    (told,) = after_training(study)
    assert "answering 1" in told and "qwen3guard" in told.lower() and told.count("GiB") == 2


def test_evidence_names_cards_that_are_known_and_its_source() -> None:
    speeds, beyond = evidence.shipped()
    for one in (*speeds, *beyond):
        assert (found := card(one.card)) is not None and found.name == one.card
        assert one.source
    for speed in speeds:
        (gpu,) = parse(speed.card)
        assert evidence.utilisation(gpu) == speed.share
    assert evidence.utilisation(parse("t4")[0]) == evidence.UTILISATION


def test_the_margin_says_what_it_rests_on() -> None:
    def said(overheads: RuntimeOverheads, work: Workload, processes: int) -> str:
        return " ".join(one.words("en") for one in evidence.margin(overheads, work, processes))

    work = Workload()
    assert "measured nowhere yet" in said(RuntimeOverheads(), work, 1)
    rigid = replace(work, expandable=False)
    several = said(RIGID, rigid, 2)
    assert "11 published" in several and "several processes" in several and "1.50 GiB" in several
    measured = RuntimeOverheads(measured=5)
    assert "5 trainings on this machine" in said(measured, work, 1)
    report = plan(PlanRequest("qwen2.5-7b", "1x24GiB", trace=False))
    assert any(note.startswith("Margin: ") for note in report.notes)

"""A study is planned for the arm that takes most, and says what was assumed."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from holdfast import methods
from holdfast.config import Study, TrainSpec, load
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.memory.estimate.workload import from_training
from holdfast.memory.planner.request import PlanRequest
from holdfast.train.planning import arms_of, overhead_of, plan_study, settled_on_cpu
from holdfast.types import LAB_FOLDER, ModelRef

STUDY = {
    "name": "arms", "model": "Qwen/Qwen2.5-7B-Instruct", "tasks": {"gsm8k": {"role": "target"}},
    "train": {"max_length": 1024}, "hardware": {"gpus": "1x24GiB"},
}  # fmt: skip
KL = MethodOverhead(names=("kl",), logits="policy+reference")


def test_a_study_is_planned_for_the_arm_that_takes_most() -> None:
    plain = Study.model_validate(STUDY)
    wide = {"lora": {"r": 256}}
    study = Study.model_validate(STUDY | {"arms": {"sft": {}, "wide": {"train": wide}}})
    found = plan_study(study)
    assert found.comparison.work.rank == 256
    assert any("Planned for the arm wide" in note for note in found.notes)
    alone = plan_study(plain)
    assert alone.comparison.work == replace(from_training(plain.train, 1024), quantize=True)
    assert not any("Planned for" in note for note in alone.notes)
    arms = {
        "sft": PlanRequest(train=plain.train),
        "kl": PlanRequest(train=plain.train, overhead=KL),
    }
    held = plan_study(plain, arms=arms, answer_tokens=200).comparison.work
    assert (held.method_overhead, held.supervised_tokens) == (KL, 200)
    fast = {"learning_rate": [1e-5, 1e-4]}
    swept = Study.model_validate(STUDY | {"arms": {"sft": {"train": fast}}})
    assert plan_study(swept).notes == alone.notes


def test_what_is_asked_wins_over_the_study() -> None:
    study = Study.model_validate(STUDY)
    asked = PlanRequest(gpus="2x24GiB", seq_len=512, method="lora", strategy="ddp", trace=False)
    found = plan_study(study, asked)
    assert found.plan is not None and found.plan.strategy == "ddp"
    assert {one.plan.strategy for one in found.candidates} == {"ddp"}
    assert (found.comparison.work.seq_len, found.comparison.work.method) == (512, "lora")


def test_methods_say_what_they_take() -> None:
    def asked(*names: str) -> MethodOverhead:
        return overhead_of([methods.build(name, None, "s", "arms.a.loss") for name in names])

    assert asked() == asked("token_mask") == asked("loss_weight") == NOTHING
    assert asked("kl") == KL
    assert asked("l2_init", "ewc").copies == 3
    assert asked("kl", "l2_init").names == ("kl", "l2_init")
    assert asked("sdft").generated_tokens == asked("gkd").generated_tokens == 256
    assert asked("gkd").everywhere
    arms = {"sft": {}, "again": {"from": "sft", "weights": []}, "held": {"loss": ["kl"]}}
    study = Study.model_validate(STUDY | {"arms": arms})
    assert arms_of(study) == {
        "sft": PlanRequest(train=study.train),
        "held": PlanRequest(train=study.train, overhead=KL),
    }


def test_the_study_without_a_length_names_what_it_assumed() -> None:
    study = Study.model_validate({**STUDY, "train": {}})
    drawing = MethodOverhead(names=("sdft",), generated_tokens=64)
    found = plan_study(study, arms={"sdft": PlanRequest(train=study.train, overhead=drawing)})
    assert found.comparison.work.seq_len == 1024 + 64
    assert any("at most 1,024 tokens" in note for note in found.notes)


def test_on_a_cpu_logits_are_counted_of_answers_alone() -> None:
    study = Study.model_validate(STUDY | {"hardware": {"device": "cpu"}})
    held = plan_study(study, answer_tokens=200).comparison.work
    assert (held.on_cpu, held.supervised_tokens, held.seq_len) == (True, 200, 1024)


@pytest.mark.parametrize(("limited", "place"), [("RLIMIT_AS", 0), ("RLIMIT_DATA", 5)])
def test_a_limit_on_the_process_alone_makes_a_cpu_recompute(
    monkeypatch: pytest.MonkeyPatch, limited: str, place: int
) -> None:
    """As `ulimit -v` and `ulimit -d` set one, on a machine that has memory enough."""
    asked = TrainSpec(), ModelRef(str(LAB_FOLDER)), "float32", 8, 256
    limits: dict[int, int] = {}

    def getrlimit(kind: int) -> tuple[int, int]:
        return limits.get(kind, resource.RLIM_INFINITY), resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert not settled_on_cpu(*asked).gradient_checkpointing
    taken = int(Path("/proc/self/statm").read_text().split()[place]) * resource.getpagesize()
    limits[getattr(resource, limited)] = taken + (1 << 20)
    assert settled_on_cpu(*asked).gradient_checkpointing


def test_the_example_plans_as_it_says() -> None:
    study = load.load(ROOT / "examples" / "qwen2.5-7b-2x24g.yaml", [])
    found = plan_study(study)
    assert found.plan is not None
    assert found.plan.strategy == "ddp"
    assert found.comparison.work.seq_len == 1024


@pytest.mark.parametrize(
    ("gib", "rows", "longest", "recomputes"),
    # Qwen2.5-7B in float32: 28 GiB of weights, and about 12 MB of activations a token.
    [(120, 4, 512, False), (100, 4, 512, True), (600, 16, 1024, False), (50, 1, 64, True)],
)
def test_a_cpu_recomputes_where_half_of_its_memory_would_not_do(
    monkeypatch: pytest.MonkeyPatch, gib: int, rows: int, longest: int, recomputes: bool
) -> None:
    monkeypatch.setattr("holdfast.train.planning.host_ram_bytes", lambda: gib << 30)
    ref, spec = ModelRef("Qwen/Qwen2.5-7B-Instruct"), TrainSpec()
    found = settled_on_cpu(spec, ref, "float32", rows, longest)
    assert found.gradient_checkpointing is recomputes
    assert found == spec.model_copy(update={"gradient_checkpointing": recomputes})
    unknown = settled_on_cpu(spec, ModelRef("nobody/knows"), "float32", rows, longest)
    assert unknown.gradient_checkpointing, "as asked"
    never = TrainSpec(gradient_checkpointing=False)
    assert settled_on_cpu(never, ref, "float32", rows, longest) == never


def test_a_server_that_draws_answers_takes_its_part_of_a_cpu_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Qwen2.5-7B in float32 takes 28 GiB more there, which the training then lacks."""
    here = MethodOverhead(("grpo",), generated_tokens=256, answers=8)
    found = {}
    for gib in range(60, 200, 5):
        monkeypatch.setattr("holdfast.train.planning.host_ram_bytes", lambda gib=gib: gib << 30)
        for served in (False, True):
            asked = TrainSpec(), ModelRef("Qwen/Qwen2.5-7B-Instruct"), "float32", 1, 256
            spec = settled_on_cpu(*asked, replace(here, served=served))
            if not spec.gradient_checkpointing:
                found.setdefault(served, gib)
    assert 28 < found[True] - found[False] < 28 + 10


def test_a_packed_study_is_planned_for_rows_that_are_full() -> None:
    packed = {"max_length": 2048, "packing": True}
    study = Study.model_validate(STUDY | {"train": packed})
    report = plan_study(study, PlanRequest(trace=False), longest=300, answer_tokens=100)
    assert report.comparison.work.seq_len == 2048
    assert report.comparison.work.supervised_tokens is None
    free = Study.model_validate(STUDY | {"train": {"packing": True}})
    assert plan_study(free, PlanRequest(trace=False), longest=300).comparison.work.seq_len == 300
    plain = Study.model_validate(STUDY)
    assert plan_study(plain, PlanRequest(trace=False), longest=300).comparison.work.seq_len == 300
    arms = {"sft": {}, "dense": {"train": {"packing": True}}}
    one = Study.model_validate(STUDY | {"train": {"max_length": 2048}, "arms": arms})
    work = plan_study(one, PlanRequest(trace=False), longest=300).comparison.work
    assert work.packed and work.seq_len == 2048, "rows of the arm that is packed"


def test_a_plan_knows_the_attention_that_a_model_is_given() -> None:
    for asked, kind in (("eager", "eager"), ("flash_attention_2", "flash"), (None, "sdpa")):
        model = {"id": STUDY["model"], "attn_implementation": asked}
        study = Study.model_validate(STUDY | {"model": model})
        assert plan_study(study, PlanRequest(trace=False)).comparison.work.attention == kind

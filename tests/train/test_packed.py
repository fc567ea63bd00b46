"""Does a packed training learn what an unpacked one learns, and refuse what it could not?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.data.chat import IGNORED, Encoded
from holdfast.errors import StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods import ANCHOR, TASK, Term, kl, loss_weight
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.train import adapter_check, data, packed
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

STEPS = 4
SPEC = TrainSpec(
    optim="sgd", optim_args={}, learning_rate=1.0, per_device_train_batch_size=4,
    gradient_accumulation_steps=2, gradient_checkpointing=False, group_by_length=False,
    logging_steps=1, lora={"dropout": 0.0},
)  # fmt: skip
PACKED = SPEC.model_copy(update={"packing": True})


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


def _data(ref: ModelRef, spec: TrainSpec, anchors: bool = False) -> TrainingData:
    """Questions of very different lengths; every fourth one an anchor, if wanted."""
    examples = []
    for i, one in enumerate(problems("train", 8 * STEPS, (1, 2, 3, 4))):
        mark: dict[str, Any] = {"kind": TASK}
        if anchors:
            mark |= {"kl": 0.5, "first": 2, "first_kl": 2.0}
            mark["kind"] = ANCHOR if i % 4 == 3 else TASK
        question = " ".join([one.question] * (1 + i % 3))
        examples.append(Example(f"p{i}", (Message("user", question),), one.human, meta=mark))
    rows, examples, _ = data.encode_all(ref, examples, spec)
    return TrainingData(rows, [str(one.meta["kind"]) for one in examples])


def _fit(
    ref: ModelRef, folder: Path, spec: TrainSpec, terms: Sequence[Term] = (), **more: Any
) -> dict[str, Any]:
    rows = _data(ref, spec, any(term.divergence for term in terms))
    size, steps = spec.per_device_train_batch_size, more.pop("steps", STEPS)
    budget = plain_budget([row.cost for row in rows.rows], steps, spec.accumulation, size)
    progress = more.pop("progress", None)
    job = TrainJob(ref, spec, budget, 1126, (2, steps), folder, device="cpu", **more)
    return dict(fit(job, rows, terms=terms, progress=progress))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(next((folder / f"checkpoint-{STEPS}").glob("*model.safetensors")))


def _same(one: Path, two: Path, limit: float = 2e-5) -> None:
    a, b = _weights(one), _weights(two)
    assert a.keys() == b.keys()
    worst = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert worst < limit
    learned = [one for name, one in a.items() if "lora_B" in name] or list(a.values())
    assert any(float(one.abs().max()) > 100 * limit for one in learned), "something was learned"


def _losses(summary: dict[str, Any]) -> list[float]:
    return [loss for _, loss in summary["loss"]]


METHODS: dict[str, list[Term]] = {
    "plain": [],
    "talr": [loss_weight.LossWeight(loss_weight.LossWeight.Options(by="talr")).term()],
    "eaft": [loss_weight.LossWeight(loss_weight.LossWeight.Options(top_k=5)).term()],
    "kl": [Term(divergence=kl.divergence)],
    "kl and talr": [
        Term(divergence=kl.divergence),
        loss_weight.LossWeight(loss_weight.LossWeight.Options(by="talr")).term(),
    ],
}


@pytest.mark.parametrize("name", METHODS)
def test_a_packed_run_has_the_losses_and_the_weights_of_an_unpacked_one(
    name: str, ref: ModelRef, tmp_path: Path
) -> None:
    """With every way to make a loss; TALR takes means over an example, wherever it stands."""
    plain = _fit(ref, tmp_path / "plain", SPEC, METHODS[name])
    found = _fit(ref, tmp_path / "packed", PACKED, METHODS[name])
    assert _losses(found) == pytest.approx(_losses(plain), rel=1e-4)
    assert len(_losses(found)) == STEPS
    _same(tmp_path / "plain", tmp_path / "packed")
    for key in ("supervised_tokens", "tokens", "examples_seen", "reference_tokens"):
        assert found[key] == plain[key], key
    told = found["packing"]
    assert told["padding"] < 0.5 * told["padding_unpacked"]
    assert told["passes"] <= STEPS * SPEC.accumulation
    assert "packing" not in plain


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_attention_keeps_examples_apart(
    attention: str, method: str, tiny_model: Path, tmp_path: Path
) -> None:
    ref = ModelRef(str(tiny_model), attention=attention)
    change = {"method": method, "completion_only_loss": False, "gradient_checkpointing": True}
    plain = _fit(ref, tmp_path / "plain", SPEC.model_copy(update=change))
    found = _fit(ref, tmp_path / "packed", PACKED.model_copy(update=change))
    assert _losses(found) == pytest.approx(_losses(plain), rel=1e-4)
    _same(tmp_path / "plain", tmp_path / "packed", 5e-5)


def test_longer_rows_take_fewer_passes(ref: ModelRef, tmp_path: Path) -> None:
    rows = _data(ref, SPEC).rows
    wide = PACKED.model_copy(update={"max_length": 4 * max(len(row.ids) for row in rows)})
    found = _fit(ref, tmp_path / "wide", wide)
    assert found["packing"]["passes"] == STEPS, "all of a step in one pass"
    plain = _fit(ref, tmp_path / "plain", SPEC)
    assert _losses(found) == pytest.approx(_losses(plain), rel=1e-4)


def test_a_plan_cuts_packed_rows_anew(ref: ModelRef, tmp_path: Path) -> None:
    """One row of a pass instead of four; as many steps, the same losses."""
    plan = MemoryPlan("cpu", checkpointing=False, micro_batch=1, accumulation=8, dtype="float32")
    plain = _fit(ref, tmp_path / "plain", SPEC)
    found = _fit(ref, tmp_path / "packed", PACKED, plan=plan)
    assert found["packing"]["passes"] > STEPS
    assert _losses(found) == pytest.approx(_losses(plain), rel=1e-4)


class Killed(Exception):
    pass


class DiesAt(Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Killed


def test_a_killed_packed_run_ends_in_the_same_weights(ref: ModelRef, tmp_path: Path) -> None:
    import torch

    spec = PACKED.model_copy(update={"lora": PACKED.lora.model_copy(update={"dropout": 0.1})})
    whole = _fit(ref, tmp_path / "whole", spec)
    with pytest.raises(Killed):
        _fit(ref, tmp_path / "killed", spec, progress=DiesAt(3))
    again = _fit(ref, tmp_path / "killed", spec)
    assert _losses(again) == _losses(whole)
    a, b = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_when_memory_runs_out_a_packed_step_is_replayed_in_halves(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _fit(ref, tmp_path / "plain", SPEC)
    longest = max(len(row.ids) for row in _data(ref, SPEC).rows)
    monkeypatch.setenv("HOLDFAST_FAULTS", f"forward>{2 * longest}")
    found = _fit(ref, tmp_path / "packed", PACKED)
    assert _losses(found) == pytest.approx(_losses(plain), rel=1e-4)
    _same(tmp_path / "plain", tmp_path / "packed")
    assert (tmp_path / "packed" / "memory.jsonl").read_text(), "it did run out"


def _two(first: int, size: int = 5) -> list[Encoded]:
    return [
        Encoded(tuple(range(first, first + size)), (IGNORED, *range(first + 1, first + size)), 1),
        Encoded(tuple(range(first + 9, first + 12)), tuple(range(first + 9, first + 12)), 0),
    ]


def _batch(varlen: bool = False) -> dict[str, Any]:
    examples = [
        {"input_ids": one.ids, "labels": one.labels, "kl_weights": [1.0] * len(one.ids)}
        for one in (*_two(10), *_two(40, 2))
    ]
    return packed.lay_out(examples, [0, 0, 1, 1], 0, varlen)


def test_what_a_row_looks_like() -> None:
    batch = _batch()
    assert batch["input_ids"].tolist() == [
        [10, 11, 12, 13, 14, 19, 20, 21], [40, 41, 49, 50, 51, 0, 0, 0],
    ]  # fmt: skip
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 0, 1, 2, 0, 0, 0],
    ]  # fmt: skip
    none = IGNORED
    assert batch["labels"].tolist() == [
        [none, 11, 12, 13, 14, none, 20, 21], [none, 41, none, 50, 51, none, none, none],
    ]  # fmt: skip
    assert batch["kl_weights"].tolist() == [
        [0, 1, 1, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0, 0, 0],
    ]  # fmt: skip
    assert batch["attention_mask"].tolist() == [[1] * 8, [1] * 5 + [0] * 3]
    assert batch[packed.EXAMPLES] == [(0, 0, 5), (0, 5, 8), (1, 0, 2), (1, 2, 5)]
    given = packed.for_model(batch)
    assert set(given) == {"input_ids", "labels", "position_ids", "kl_weights"}


def test_flash_attention_is_told_lengths() -> None:
    examples = [{"input_ids": one.ids, "labels": one.labels} for one in _two(10)]
    batch = packed.lay_out(examples, [0, 0], 0, varlen=True)
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 5, 8]
    assert batch["max_length_q"] == batch["max_length_k"] == 5
    assert "attention_mask" not in packed.for_model(batch)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_pieces_have_all_the_examples(most: int) -> None:
    batch = _batch()
    found = packed.pieces(batch, most)
    assert all(len(one[packed.EXAMPLES]) <= most for one in found)
    whole = [batch["input_ids"][row, a:b].tolist() for row, a, b in batch[packed.EXAMPLES]]
    assert whole == [
        one["input_ids"][row, a:b].tolist() for one in found for row, a, b in one[packed.EXAMPLES]
    ]
    learned = sum(int((one["labels"] != IGNORED).sum()) for one in found)
    assert learned == int((batch["labels"] != IGNORED).sum())


def test_predictions_are_taken_apart_and_put_together() -> None:
    import torch

    batch = _batch()
    values = torch.arange(1.0, 15.0).view(2, 7)  # of the tokens 1 to 7 of each row
    places = packed.predictions(batch[packed.EXAMPLES], 8)
    found = packed.apart(values, places)
    assert found.tolist() == [[1, 2, 3, 4], [6, 7, 0, 0], [8, 0, 0, 0], [10, 11, 0, 0]]
    back = packed.together(found, places, values)
    assert back.tolist() == [[1, 2, 3, 4, 0, 6, 7], [8, 0, 10, 11, 0, 0, 0]]
    columns = torch.tensor([1, 2, 6])
    some = packed.predictions(batch[packed.EXAMPLES], 8, columns)
    assert packed.apart(values[:, columns], some).tolist() == [
        [0, 2, 3, 0], [0, 7, 0, 0], [0, 0, 0, 0], [10, 0, 0, 0],
    ]  # fmt: skip


def _model(folder: Path, attention: str = "sdpa") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_trial_passes_where_transformers_builds_the_mask(
    attention: str, tiny_model: Path
) -> None:
    packed.check(_model(tiny_model, attention), "cpu")


def test_the_trial_finds_what_examples_see_of_each_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that takes positions for a detail: the mask would be one triangle."""
    from transformers import masking_utils

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)
    with pytest.raises(TrainingError, match="packed behind another"):
        packed.check(_model(tiny_model), "cpu")


def test_the_trial_takes_several_rows_as_passes_do(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels may tell examples apart in a single row and not in several."""
    from transformers import masking_utils

    found = masking_utils.find_packed_sequence_indices

    def alone(positions: Any) -> Any:
        return found(positions) if len(positions) == 1 else None

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", alone)
    with pytest.raises(TrainingError, match="packed behind another"):
        packed.check(_model(tiny_model), "cpu")
    packed.check(_model(tiny_model), "cpu", varlen=True)


def test_what_pads_a_row_needs_no_positions_of_its_own() -> None:
    """GPT-2 has 16 positions here: padding that is longer than any example would be at others."""
    import torch

    examples = [{"input_ids": [1] * size, "labels": [1] * size} for size in (12, 12, 12, 3)]
    batch = packed.for_model(packed.lay_out(examples, [0, 0, 0, 1], 0, False))
    assert batch["input_ids"].shape == (2, 36) and int(batch["position_ids"].max()) == 11
    model = _made("gpt2", n_positions=16)
    with torch.no_grad():
        assert bool(model(**batch, use_cache=False).loss.isfinite())


def test_the_trial_is_made_before_the_first_step(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import masking_utils

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)
    with pytest.raises(TrainingError, match="packed behind another"):
        _fit(ref, tmp_path, PACKED)
    assert not list(tmp_path.glob("checkpoint-*"))


def _kind(kind: str, **more: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small | more))


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("mamba", {}, "state-space or convolution"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, r"\(conv\)"),
        ("bloom", {"n_head": 2, "hidden_size": 16}, "takes no positions"),
        ("mixtral", {"num_local_experts": 2}, "balances its experts"),
    ],
)
def test_models_that_cannot_be_packed_are_refused_by_name(
    kind: str, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(StudyError, match=why) as caught:
        packed.check_model(_kind(kind, **more))
    assert kind in caught.value.message and caught.value.where == "train.packing"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2"])
def test_others_are_not(kind: str) -> None:
    packed.check_model(_kind(kind))


def test_they_are_refused_by_their_configuration_alone(ref: ModelRef, tmp_path: Path) -> None:
    _kind("mamba").config.save_pretrained(tmp_path)
    adapter_check.check_fast(ref, PACKED)
    adapter_check.check_fast(ModelRef(str(tmp_path)), SPEC)
    with pytest.raises(StudyError, match="state-space"):
        adapter_check.check_fast(ModelRef(str(tmp_path)), PACKED)


def test_a_loss_that_is_a_mean_over_each_pass_is_refused() -> None:
    """Some models that read pictures too: a pass of more examples would weigh as much as others."""
    model = _kind("llama")
    model.accepts_loss_kwargs = False
    with pytest.raises(StudyError, match="a mean over each forward pass"):
        packed.check_model(model)


def test_noise_that_goes_by_the_row_is_refused() -> None:
    with pytest.raises(ValueError, match="neftune_noise_alpha"):
        TrainSpec(packing=True, neftune_noise_alpha=5)


def test_a_skipped_pass_is_no_pass(ref: ModelRef, tmp_path: Path) -> None:
    """A step of short examples takes fewer; the silent passes of unpacked steps are not run."""
    from holdfast.train import trainer

    seen: list[int] = []

    class Counting(trainer.Trainer):
        def compute_loss(self, model: Any, inputs: Any, *given: Any, **more: Any) -> Any:
            seen.append(len(inputs[packed.EXAMPLES]))
            return super().compute_loss(model, inputs, *given, **more)

    spec = PACKED.model_copy(update={"per_device_train_batch_size": 1,
                                     "gradient_accumulation_steps": 8})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Trainer", Counting)
        found = _fit(ref, tmp_path, spec)
    assert len(seen) == found["packing"]["passes"]
    assert sum(seen) == found["examples_seen"] == 8 * STEPS


def test_own_trainers_are_refused() -> None:
    assert TrainSpec(packing=True, torch_compile=True).of_our_trainer == (
        "train.packing, train.torch_compile"
    )
    assert TrainSpec().of_our_trainer == ""


def test_several_kinds_of_layers_are_no_hindrance() -> None:
    """Gemma 2 has a window in every other layer, which is counted in positions of an example."""
    model = _made("gemma2", sliding_window=4, head_dim=8)
    packed.check(model, "cpu")


def _made(kind: str, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "vocab_size": 128, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small | more))

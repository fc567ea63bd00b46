"""Does every kind of adapter train, leave the base untouched, and load on it as it was saved?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import LoraSpec, TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import StudyError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods import REPLAY
from holdfast.models import ModelRef, placement
from holdfast.models.rank import Rank
from holdfast.progress import Silent
from holdfast.train import adapters, data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

VARIANTS = ("lora", "rslora", "dora", "oft", "osf", "corda")
PLAN = MemoryPlan("cpu", checkpointing=False, micro_batch=2, accumulation=2, dtype="float32")


def _spec(variant: str, **more: Any) -> TrainSpec:
    lora = {"variant": variant, "r": 4, "alpha": 8} | more.pop("lora", {})
    return TrainSpec(
        optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
        gradient_checkpointing=False, lora=LoraSpec(**lora), **more,
    )  # fmt: skip


def _examples(count: int = 8) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _rows(folder: Path) -> Any:
    return data.encode_all(ModelRef(str(folder)), _examples(), _spec("lora"))[0]


def _base(folder: Path, nf4: bool = False) -> Any:
    import torch

    from holdfast import models

    return models.load_model(ModelRef(str(folder)), torch.float32, "cpu", nf4).eval()


def _logits(model: Any, ids: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits


@pytest.fixture(scope="module")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as one block of 4-bit weights, which is 64 numbers."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide-model")
    config = LlamaConfig.from_pretrained(tiny_model, hidden_size=64, head_dim=16)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _fit(
    folder: Path, out: Path, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch, plan: Any = PLAN
) -> Any:
    """Train two steps and return the model as it is in memory."""
    kept: list[Any] = []
    adapt = adapters.adapt
    monkeypatch.setattr(
        adapters, "adapt", lambda *args, **more: kept.append(adapt(*args, **more)) or kept[-1]
    )
    encoded = _rows(folder)
    budget = plain_budget([row.cost for row in encoded], 2, 2, 2)
    job = TrainJob(ModelRef(str(folder)), spec, budget, 1, (1, 2), out, device="cpu", plan=plan)
    fit(job, TrainingData(encoded))
    return kept[-1].eval()


def _check_saved(folder: Path, out: Path, tuned: Any, nf4: bool, tolerance: float = 1e-5) -> None:
    import torch
    from peft import PeftModel

    ids = _rows(folder)[0].ids
    before = _logits(_base(folder, nf4), ids)
    after = _logits(tuned, ids)
    assert (after - before).abs().max() > 1e-2, "something was learned"
    loaded = PeftModel.from_pretrained(_base(folder, nf4), str(out / "checkpoint-2")).eval()
    torch.testing.assert_close(_logits(loaded, ids), after, rtol=0, atol=tolerance)
    with tuned.disable_adapter():
        assert torch.equal(_logits(tuned, ids), before), "switched off it is exactly the base"


def test_every_variant_loads_on_the_untouched_base(
    tiny_model: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(variant)
    assert spec.reference_by_switch
    tuned = _fit(tiny_model, tmp_path, spec, monkeypatch)
    _check_saved(tiny_model, tmp_path, tuned, nf4=False)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "oft"])
def test_on_four_bits(
    wide_model: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(variant, method="qlora")
    tuned = _fit(wide_model, tmp_path, spec, monkeypatch, replace(PLAN, quantized=True))
    _check_saved(wide_model, tmp_path, tuned, nf4=True)


class Killed(Exception):
    """Stands for the power cut."""


class DiesAfterOne(Silent):
    """A progress that raises when the second step is done."""

    steps = 0

    def advance(self, amount: int = 1) -> None:
        self.steps += amount
        if self.steps == 2:
            raise Killed


@pytest.mark.parametrize("variant", ["osf", "corda"])
def test_a_killed_run_ends_in_the_same_weights(
    tiny_model: Path, tmp_path: Path, variant: str
) -> None:
    import torch
    from safetensors.torch import load_file

    encoded, spec = _rows(tiny_model), _spec(variant)
    budget = plain_budget([row.cost for row in encoded], 3, 2, 2)
    for name, progress in (("whole", Silent()), ("cut", DiesAfterOne()), ("cut", Silent())):
        try:
            job = TrainJob(
                ModelRef(str(tiny_model)), spec, budget, 1, (1, 3), tmp_path / name, device="cpu",
                plan=PLAN,
            )  # fmt: skip
            fit(job, TrainingData(encoded), progress=progress)
        except Killed:
            assert (tmp_path / "cut" / "checkpoint-1" / "complete").exists()
    one, two = (
        load_file(tmp_path / name / "checkpoint-3" / "adapter_model.safetensors")
        for name in ("whole", "cut")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("variant", ["oft", "osf", "corda"])
def test_adapters_in_bfloat16(
    tiny_model: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, dtype="bfloat16", adapter_dtype="bfloat16")
    tuned = _fit(tiny_model, tmp_path, _spec(variant), monkeypatch, plan)
    trained = {one.dtype for one in tuned.parameters() if one.requires_grad}
    assert [str(one) for one in trained] == ["torch.bfloat16"]


def test_corda_begins_where_peft_does(tiny_model: Path) -> None:
    """The trained half is PEFT's own start, the frozen half takes it away again."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    encoded = _rows(tiny_model)
    mine = adapters.adapt(_base(tiny_model), _spec("corda"), encoded, [REPLAY] * len(encoded))
    theirs = _base(tiny_model)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
        "up_proj", "down_proj"], init_lora_weights="corda",
        corda_config=CordaConfig(corda_method="kpm"),
    )  # fmt: skip
    preprocess_corda(
        theirs, config, lambda: [theirs(torch.tensor([row.ids])) for row in encoded]
    )  # fmt: skip
    theirs = get_peft_model(theirs, config)
    name = "base_model.model.model.layers.1.mlp.up_proj"
    a, b = (mine.get_submodule(f"{name}.lora_{one}.default").weight for one in "AB")
    a0, b0 = (theirs.get_submodule(f"{name}.lora_{one}.default").weight for one in "AB")
    torch.testing.assert_close(a, torch.cat([a0, a0]))
    torch.testing.assert_close(b, torch.cat([b0, -b0], 1))
    layer = mine.get_submodule(name)
    assert layer.scaling["default"] == 2.0
    torch.testing.assert_close(
        layer.base_layer.weight,
        theirs.get_submodule(name).base_layer.weight + 2 * b0 @ a0,
    )
    ids = encoded[0].ids
    torch.testing.assert_close(_logits(mine, ids), _logits(_base(tiny_model), ids))


def test_corda_trains_its_first_half_only(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    _fit(tiny_model, tmp_path, _spec("corda"), monkeypatch)
    one, two = (
        load_file(tmp_path / f"checkpoint-{step}" / "adapter_model.safetensors") for step in (1, 2)
    )
    for key in one:
        a, b = (value if "lora_A" in key else value.T for value in (one[key], two[key]))
        assert torch.equal(a[4:], b[4:])
        assert not torch.equal(a[:4], b[:4])


def test_what_corda_looks_at(tiny_model: Path) -> None:
    encoded = _rows(tiny_model)
    chosen, mode = adapters.calibration(encoded, ["task"] * 6 + [REPLAY] * 2)
    assert (list(chosen), mode) == (encoded[6:], "kpm")
    assert adapters.calibration(encoded, ["task"] * 8)[1] == "ipm"
    many, _ = adapters.calibration(encoded * 100, ["task"] * 800)
    assert len(many) == adapters.CALIBRATION_ROWS


def _empty(kind: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))


def _adapted_names(model: Any, spec: TrainSpec) -> set[str]:
    found = adapters.adapt(model, spec)
    return {name.split(".layers.")[1].rpartition(".lora_A")[0]
            for name, _ in found.named_parameters() if "lora_A" in name}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma2", "mistral", "phi3"])
def test_presets_and_layers(kind: str) -> None:
    attention, mlp = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}
    if kind == "phi3":
        attention, mlp = {"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}
    for word, parts in (("attention", attention), ("mlp", mlp), ("all-linear", attention | mlp)):
        for layers in (None, (1,)):
            spec = _spec("lora", lora={"target_modules": word, "layers": layers})
            names = _adapted_names(_empty(kind), spec)
            assert {name.split(".")[-1] for name in names} == parts
            assert {name.split(".")[0] for name in names} == ({"1"} if layers else {"0", "1"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_hold_for_every_variant(tiny_model: Path, variant: str) -> None:
    spec = _spec(variant, lora={"target_modules": ("q_proj", "down_proj"), "layers": (1,)})
    encoded = _rows(tiny_model)
    model = adapters.adapt(_base(tiny_model), spec, encoded, ["task"] * len(encoded))
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trained
    assert all("layers.1." in one and ("q_proj" in one or "down_proj" in one) for one in trained)
    placement.check_start(model, PLAN, "lora", "cpu", Rank())


@pytest.mark.parametrize(
    ("variant", "lora", "message"),
    [
        ("lora", {"target_modules": ("q_prj",)}, r"called 'q_prj'.*q_proj"),
        ("lora", {"target_modules": ("q_proj", "nope")}, "called 'nope'"),
        ("lora", {"layers": (0, 7)}, "no layer 7"),
        ("oft", {"r": 5}, "blocks of 5 do not divide the 32 inputs"),
        ("osf", {"r": 16}, "rank 16 is not below the rank of .*k_proj, 16"),
        ("corda", {"r": 32}, "not below the rank"),
        ("corda", {}, "training examples to look at"),
    ],
)
def test_what_the_model_does_not_have(
    tiny_model: Path, variant: str, lora: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        adapters.adapt(_base(tiny_model), _spec(variant, lora=lora))


def test_a_preset_without_a_match_names_what_there_is() -> None:
    import torch
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(hidden_size=64, num_hidden_layers=1, num_heads=8, head_dim=16,
                          state_size=16, n_groups=1, vocab_size=16)  # fmt: skip
    spec = _spec("lora", lora={"target_modules": "attention"})
    with torch.device("meta"), pytest.raises(StudyError, match=r"of 'attention'\n.*in_proj"):
        adapters.adapt(Mamba2ForCausalLM(config), spec)


def test_where_a_variant_may_train() -> None:
    for variant in ("lora", "rslora"):
        for where in ("cpu", "single", "ddp", "split", "fsdp2", "offload"):
            adapters.check(_spec(variant), where, where != "offload")
    adapters.check(_spec("dora"), "ddp", True)
    for variant, where in (("oft", "fsdp2"), ("osf", "ddp"), ("corda", "split")):
        with pytest.raises(StudyError, match=f"{variant} was not validated"):
            adapters.check(_spec(variant), where, False)
    with pytest.raises(StudyError, match="4-bit weights do not allow"):
        adapters.check(_spec("osf"), "single", True)
    with pytest.raises(StudyError, match="weight decay"):
        adapters.check(_spec("corda", weight_decay=0.1), "single", False)


def test_a_gradient_that_does_not_arrive_is_noticed(tiny_model: Path) -> None:
    from holdfast.errors import TrainingError

    for variant in ("oft", "osf", "dora"):
        model = adapters.adapt(_base(tiny_model), _spec(variant))
        with pytest.raises(TrainingError, match="2 of 2 layers got no gradient"):
            placement.check_gradients(model)
        with pytest.raises(TrainingError, match="is trained, under method full"):
            placement.check_start(model, PLAN, "full", "cpu", Rank())

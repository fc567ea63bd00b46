"""Every name that docs/study.md promises works wherever settings are written; others say more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.config import Study, TrainSpec, load
from holdfast.config.mistakes import known_keys
from holdfast.config.names import ELSEWHERE, FOREIGN, own_names
from holdfast.config.sweeps import expand, settings_of
from holdfast.config.training import LoraSpec
from holdfast.errors import StudyError

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
SAMPLE: dict[str, tuple[Any, Any]] = {
    "lora.r": (7, 9), "lora.alpha": (7, 9), "lora.dropout": (0.2, 0.3),
    "lora.target_modules": (("q_proj", "v_proj"), "mlp"), "lora.variant": ("dora", "rslora"),
    "learning_rate": (0.5, 0.25), "lr_scheduler_type": ("cosine", "constant"),
    "warmup_steps": (0.25, 0.5), "num_train_epochs": (3.0, 4.0),
    "per_device_train_batch_size": (3, 5), "optim": ("sgd", "adafactor"),
    "max_grad_norm": (0.5, 2.0), "neftune_noise_alpha": (5.0, 7.0),
    "gradient_checkpointing": (False, True), "max_length": (64, 128), "val_size": (0.25, 0.5),
    "packing": (True, False), "kernels": ("liger", None),
    "method": ("qlora", "full"), "completion_only_loss": (False, True),
}  # fmt: skip
"""For each setting two values; one of them is the default's at most."""
SAME_IN_LORA = {"modules_to_save", "lora_modules_to_save", "additional_target"}
"""Handed on to `lora.modules_to_save`."""
OPPOSITE = {"train_on_inputs", "train_on_prompt"}


def _promised() -> list[tuple[str, str]]:
    """(own name, other name as written) of every row of the page's table."""
    table = PAGE.read_text("utf-8").partition("### Names of other programs")[2].partition("###")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    return [
        (re.findall(r"`([^`]+)`", own)[0], other)
        for own, others in rows
        for other in re.findall(r"`([^`]+)`", others)
    ]


PROMISED = _promised()


def _said(own: str, written: str) -> tuple[str, Any, Any]:
    """The name, the value under it, and the value that the setting comes to."""
    name, colon, text = written.partition(": ")
    if not colon:
        value = SAMPLE[own][0]
        return name, (not value if name in OPPOSITE else value), value
    meant = {"lora_target_linear": "all-linear", "use_rslora": "rslora", "full_finetuning": "full"}
    value = meant.get(name.removeprefix("peft_"), SAMPLE[own][0])
    return name, yaml.safe_load(text), value


def _value(train: TrainSpec, own: str) -> Any:
    head, _, last = own.rpartition(".")
    return getattr(train.lora if head else train, last)


def _study(train: dict[str, Any], arm: dict[str, Any] | None = None) -> Study:
    return load.load({
        "name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}, "train": train,
        "arms": {"a": {"train": arm or {}}},
    })  # fmt: skip


def _nested(name: str, value: Any) -> dict[str, Any]:
    head, _, last = name.rpartition(".")
    return {head: {last: value}} if head else {last: value}


def test_the_page_promises_what_there_is() -> None:
    names = {name.partition(":")[0] for _, name in PROMISED}
    own = own_names(TrainSpec) | {f"lora.{k}": f"lora.{v}" for k, v in own_names(LoraSpec).items()}
    accepted = {name for name, meant in own.items() if name != meant}
    accepted |= {name for name, (meant, _) in ELSEWHERE.items() if meant in own.values()}
    assert names <= accepted
    assert names >= {name for name in accepted if "." not in name} - SAME_IN_LORA


@pytest.mark.parametrize(("own", "written"), PROMISED)
def test_a_promised_name_works_everywhere(own: str, written: str, tmp_path: Path) -> None:
    name, value, meant = _said(own, written)
    given = _nested(name, list(value) if isinstance(value, tuple) else value)
    study = _study(given)
    assert _value(study.train, own) == meant, "in a study"
    dumped = study.model_dump(mode="json", exclude_unset=True)
    assert load.load(dumped) == study, "what a run folder keeps says the same"

    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value).strip()
    override = f"train.{name}={text.removesuffix('...').strip()}"
    before = _nested(own, SAMPLE[own][1])
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({
        "name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}, "train": before,
    }), encoding="utf-8")  # fmt: skip
    assert _value(load.load(path, [override]).train, own) == meant, "an override wins"
    assert name.rpartition(".")[2] in known_keys(TrainSpec) + known_keys(LoraSpec)
    assert settings_of(given) == [own]

    try:
        found = expand(_study({}, given))
    except StudyError as error:
        assert "budgets would not be equal" in str(error), "it is the budget, whatever it is called"
        with pytest.raises(StudyError, match="budgets would not be equal"):
            expand(_study({}, _nested(own, meant)))
    else:
        assert _value(found["a"].train, own) == meant, "in an arm"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"lora_r": 4, "lora": {"r": 8}}, "lora.r and lora_r are one setting"),
        ({"lora_r": 4, "lora_rank": 8}, "lora_r and lora_rank are one setting"),
        ({"lora": {"r": 4, "rank": 4}}, "r and rank are one setting: give it once"),
        ({"lr": 1, "learning_rate": 1}, "are one setting: give it once"),
        ({"use_dora": True, "use_rslora": True}, "use_dora and use_rslora are one setting"),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, "warmup_steps and warmup_ratio"),
        ({"warmup_ratio": 3}, "warmup_ratio is a share"),
        ({"warmup_ratio": "x"}, "warmup_ratio is a share"),
        ({"load_in_4bit": "yes"}, "load_in_4bit is true or false"),
        ({"quantization_bit": 8}, "quantization_bit 4 is what there is"),
        ({"lora": 3, "lora_r": 4}, "lora_r belongs under `lora:`"),
        ({"adapter": "ia3"}, "train.method"),
        ({"rlhf_type": "dpo"}, "remedies of an arm"),
        ({"random_state": 3407}, "seeds: [1, 2, 3]"),
        ({"freeze_vit": True}, "text is what is trained on"),
        ({"val_size": 1.5}, "a share below 1, or a whole number"),
        ({"val_size": 0.1, "val_path": "x"}, "not both"),
        ({"early_stopping_patience": 2}, "needs held-out examples: give val_size"),
        ({"eval_steps": 5}, "needs held-out examples: give val_size"),
        ({"val_size": 4, "early_stopping_threshold": 0.1}, "needs early_stopping_patience"),
        ({"optim_args": "momentum"}, "name=value"),
    ],
)
def test_contradictions_are_refused(train: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        _study(train)


def test_the_same_said_twice_is_no_contradiction() -> None:
    assert _study({"lora_r": 4, "lora": {"r": 4}}).train.lora.r == 4
    assert _study({"use_dora": False}).train.lora.variant == "lora"
    assert _study({"load_in_4bit": False}).train.method == "lora"
    assert _study({"use_gradient_checkpointing": "unsloth"}).train.gradient_checkpointing is True
    assert _study({"lora_target": "all"}).train.lora.target_modules == "all-linear"
    assert _study({"lora_target": "q_proj, v_proj"}).train.lora.target_modules == (
        "q_proj", "v_proj",
    )  # fmt: skip
    both = "momentum=0.9, nesterov=true, steps=3, small=1e-6"
    assert _study({"optim_args": both}).train.optim_args == {
        "momentum": 0.9, "nesterov": "true", "steps": 3, "small": 1e-6,
    }  # fmt: skip


def test_other_names_are_swept() -> None:
    found = expand(_study({}, {"lora_r": [4, 8], "warmup_ratio": [0.0, 0.1]}))
    assert list(found) == [
        f"a-r{r}-warmup_steps-{share}" for r in (4, 8) for share in ("0", "0.1")
    ]  # fmt: skip
    assert [one.train.lora.r for one in found.values()] == [4, 4, 8, 8]
    assert [one.train.warmup_steps for one in found.values()] == [0, 0.1, 0, 0.1]
    whole = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2}}
    assert expand(_study({}, whole))["a"].train.lr_scheduler_kwargs == {"power": 2}
    odd = expand(_study({}, {"lr_scheduler_kwargs": [{"power": 2}, {"power": 3}]}))
    assert list(odd) == ["a-lr_scheduler_kwargs-power2", "a-lr_scheduler_kwargs-power3"]


@pytest.mark.parametrize("key", FOREIGN)
def test_names_of_other_programs_say_what_to_write(key: str) -> None:
    with pytest.raises(StudyError, match=f"{key}: unknown key: ") as caught:
        _study({key: 1})
    assert FOREIGN[key] in str(caught.value)
    assert key not in known_keys(TrainSpec), "a name that works is not refused"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.a.train.packing_strategy=bfd", "write `packing: true`"),
        ("arms.a.train.learnin_rate=1", "did you mean 'learning_rate'"),
        ("packing_strategy=bfd", "write `packing: true`"),
        ("lora_r=8", "belongs under `train:`"),
        ("deepspeed=ds.json", "name them in `hardware:"),
        ("model={id: lab, flash_attention: true}", "attn_implementation: flash_attention_2"),
        ("model={id: lab, load_in_4bit: true}", "belongs under `train:`"),
    ],
)
def test_they_say_so_where_they_do_not_belong(override: str, message: str) -> None:
    study = {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}},
             "arms": {"a": None}}  # fmt: skip
    with pytest.raises(StudyError, match=re.escape(message)):
        expand(load.load(study, [override]))


def test_what_came_later_leaves_identities_as_they_were() -> None:
    plain = TrainSpec().identity(set())
    assert "val_size" not in plain and "adam_beta1" not in plain and "optim" in plain
    changed = TrainSpec(val_size=0.1, adam_beta2=0.95).identity({"optim"})
    assert changed["val_size"] == 0.1 and changed["adam_beta2"] == 0.95
    assert "adam_beta1" not in changed and "optim" not in changed


def test_an_override_of_the_whole_section_wins_over_single_names() -> None:
    study = {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}},
             "train": {"lora_r": 8, "use_dora": True, "lr": 1}}  # fmt: skip
    train = load.load(study, ["train.lora={r: 2}"]).train
    assert (train.lora.r, train.lora.variant, train.learning_rate) == (2, "lora", 1)

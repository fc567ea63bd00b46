"""The starting recipe on every architecture: built from the configuration alone, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.field_cases import Case
from holdfast.config import LoraSpec, TrainSpec
from holdfast.models import ModelRef
from holdfast.train.adapter_check import build, check_model
from tests.train.test_targets import MODELS, S, kinds_of, model_of

TOWERS = ("vision", "visual", "audio", "projector")
ASKED: tuple[Any, ...] = (
    r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|down|q|k|v)_proj",
    ["q_proj", "lm_head"], ["embed_tokens"], ["q_prj"], ["q", "v"], r".*_proj", [],
)  # fmt: skip
"""Ways of naming matrices that people write, right and wrong ones."""
QUANTISED = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "fp8": {"quant_method": "fp8"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True,
                     "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
    "of next year": {"quant_method": "q2027"},
}  # fmt: skip


def own() -> Iterator[Case]:
    """Architectures, names of matrices, and bases in few bits."""
    for kind in MODELS:
        yield Case("adapters", f"{kind}, starting recipe", _recipe(kind), must_work=True)
    for asked in ASKED:
        yield Case("adapters", f"target_modules {asked}", _named(asked))
    for name, how in QUANTISED.items():
        for method in ("lora", "qlora", "full"):
            yield Case("adapters", f"{name} base, {method}", _stored(how, method))


def given(folder: Path) -> Iterator[Case]:
    """The folder's scripts build models of the same kinds."""
    return iter(())


def _recipe(kind: str) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        adapted, _ = build(model_of(kind), TrainSpec())
        trained = [name for name, one in adapted.named_parameters() if one.requires_grad]
        towers = [name for name in trained if any(part in name for part in TOWERS)]
        if towers:
            return f"{len(towers)} adapters in what reads pictures or sounds"
        wanted = set(MODELS[kind][1].split())
        found = kinds_of(adapted)
        return None if found == wanted else f"adapts {found}, not {wanted}"

    return run


def _named(asked: Any) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        adapted, _ = build(model_of("llama"), TrainSpec(lora=LoraSpec(target_modules=asked)))
        trained = [name for name, one in adapted.named_parameters() if one.requires_grad]
        if not trained:
            return "trains nothing"
        given = [asked] if isinstance(asked, str) else asked
        plain = [one for one in given if one.isidentifier()]
        lost = [one for one in plain if not any(f".{one}." in name for name in trained)]
        return f"{lost} has no adapter" if lost else None

    return run


def _stored(how: dict[str, Any], method: str) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        config = {"model_type": "llama", **S, "quantization_config": how}
        (scratch / "config.json").write_text(json.dumps(config), encoding="utf-8")
        spec = TrainSpec.model_validate({"method": method})
        said = check_model(ModelRef(str(scratch)), spec, "cpu")
        return None if said or "load_in_4bit" in how else "nothing is said of how it is stored"

    return run

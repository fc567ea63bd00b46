"""Counts a model's parameters and matrices by its own class, without weights.

This module needs torch; it is run in a process of its own by `holdfast.memory.trace.measuring`.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size", "head_dim", "max_position_embeddings",
    "tie_word_embeddings",
)  # fmt: skip
"""What a shape needs, under the names that every config class of transformers answers to."""
ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
"""Last parts of names of matrices that choose experts: nobody adapts them."""


def built(config: PretrainedConfig, trust: bool) -> PreTrainedModel:
    """The causal language model of a config on the meta device, its tied parameters one.

    Raises:
        Exception: whatever the class raises.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    model.tie_weights()
    return model


def parameters(model: torch.nn.Module) -> int:
    """All parameters, each once."""
    return sum(one.numel() for one in model.parameters())


def parts(model: PreTrainedModel, layers: int) -> dict[str, object]:
    """The matrices of the decoder layers, as the catalogue lists them, and the total.

    Args:
        model: see `built`.
        layers: of the language model, by its config.

    Raises:
        ValueError: there is no list of layers.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
    ]
    alike = [one for one in lists if len(one[1]) == layers] or lists
    if not alike:
        raise ValueError("its layers are in no list")
    trunk, stack = max(alike, key=lambda one: parameters(one[1]))
    rows: Counter[tuple[str, int, int, int]] = Counter()
    stacked: Counter[tuple[str, int, int]] = Counter()
    for path, module in stack.named_modules():
        name = path.rpartition(".")[2]
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear) and name not in ROUTERS:
            bias = int(module.bias is not None)
            rows[name, module.in_features, module.out_features, bias] += 1
        elif type(module).__name__ == "Conv1D" and isinstance(weight, torch.Tensor):
            n_in, n_out = weight.shape  # GPT-2's matrices, the other way round
            rows[name, n_in, n_out, 1] += 1
    for path, parameter in stack.named_parameters():
        if parameter.dim() == 3 and min(parameter.shape[1:]) > 1:
            count, n_out, n_in = parameter.shape
            stacked[path.rpartition(".")[2], n_in, n_out] += count
    stem = trunk.rpartition(".")[0]
    return {
        "total": parameters(model),
        "trunk": "" if stem == "model" else stem,
        "linears": [[*row, count] for row, count in rows.items()],
        "stacked": [[*row, count, []] for row, count in stacked.items()],
    }


def _numbers(value: object) -> object:
    """A config's content with infinite numbers, which transformers spells in a way of its own."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(str(value["__float__"]))
        return {name: _numbers(one) for name, one in value.items()}
    return [_numbers(one) for one in value] if isinstance(value, list) else value


def _field(config: PretrainedConfig, name: str) -> object:
    """A field of a config; None where it has none, or another one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers: fields that differ from layer to layer
        return None


def answer(question: Mapping[str, object]) -> dict[str, object]:
    """What `holdfast.memory.trace.measuring` asked for."""
    trust = bool(question["trust"])
    if trust:
        revision = question["revision"]
        config = AutoConfig.from_pretrained(
            str(question["model"]),
            revision=None if revision is None else str(revision),
            trust_remote_code=True,
        )
    else:
        given = _numbers(question["config"])
        values = dict(given) if isinstance(given, Mapping) else {}
        config = AutoConfig.for_model(str(values.pop("model_type")), **values)
    text = config.get_text_config()
    fields = {name: _field(text, name) for name in FIELDS}
    if isinstance(fields["intermediate_size"], list | tuple):
        fields["intermediate_size"] = max(fields["intermediate_size"])
    known = {name: value for name, value in fields.items() if value is not None}
    return parts(built(config, trust), int(text.num_hidden_layers)) | {"fields": known}


def main() -> None:
    """Read the question from standard input; write one line, and nothing else, to the output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between
    try:
        found = answer(json.load(sys.stdin))
    except Exception as error:  # any model's own code
        first = (str(error).strip().splitlines() or [""])[0]
        found = {"reason": f"{type(error).__name__}: {first[:300]}"}
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Counts a model's parameters and matrices by its own class, without weights.

This module needs torch; it is run in a process of its own by `holdfast.memory.trace.counts`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from holdfast.memory.model.parts import (
    NOT_LANGUAGE,
    NUMBERED,
    Parts,
    class_of,
    is_transposed,
    kind_of,
    last,
)

FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size", "head_dim", "max_position_embeddings",
)  # fmt: skip
"""What a shape needs, under the names that every config class of transformers answers to."""


def built(config: PretrainedConfig, trust: bool) -> PreTrainedModel:
    """The model of a config on the meta device, as it is loaded to be trained.

    Tied parameters are one; what is published in few bits is built in 16.

    Raises:
        Exception: whatever the class raises.
    """
    for part in (config, config.get_text_config()):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config
    made = AutoModelForCausalLM if trust else class_of(config.model_type)
    with torch.device("meta"):
        model: PreTrainedModel = made.from_config(config, trust_remote_code=trust)
    model.tie_weights()
    return model


def parameters(model: torch.nn.Module) -> int:
    """All parameters, each once."""
    return sum(one.numel() for one in model.parameters())


def matrices(model: PreTrainedModel) -> dict[str, object]:
    """The matrices of a model as `holdfast.memory.model.shape.from_config` takes them.

    Returns:
        `total`, parameters of all; `linears`, rows of path (numbers as stars), inputs, outputs,
        bias, how many, reach, kind and layers (none: all), see `Linear`; `stacked`, rows of path,
        inputs, outputs, how many, the names under which PEFT adapts them, and layers; `tower`,
        parameters of what reads pictures or sounds; `towers`, its matrices as rows like `linears`.
    """
    parts = Parts(model)
    taken = {name for names in parts.translated.values() for name in names}
    language: dict[tuple[object, ...], list[int]] = {}
    towers: dict[tuple[object, ...], list[int]] = {}
    for name, one in parts.linear.items():
        n_out, n_in = reversed(one.weight.shape) if is_transposed(one) else one.weight.shape
        left = parts.is_router(name) or parts.is_unseen(name) or NOT_LANGUAGE.search(name)
        reach = "never" if last(name) in taken else "named" if left else "all"
        row = (kind_of(name), n_in, n_out, int(one.bias is not None), reach, parts.kind(name))
        (towers if parts.is_tower(name) else language).setdefault(row, []).append(_layer(name))
    stacked: dict[tuple[str, int, int], list[int]] = {}
    sizes: Counter[tuple[str, int, int]] = Counter()
    tower = 0
    for name, parameter in model.named_parameters():
        if parts.is_tower(name):
            tower += parameter.numel()
        elif parameter.dim() == 3 and min(parameter.shape[1:]) > 1:
            count, n_out, n_in = parameter.shape
            sizes[kind_of(name), n_in, n_out] += count
            stacked.setdefault((kind_of(name), n_in, n_out), []).append(_layer(name))
    every = _number(model.config.get_text_config(), "num_hidden_layers")
    adapted = {kind_of(name) for name in parts.stacked}
    targets = {path: parts.translated.get(last(path), ()) if path in adapted else ()
               for path, _, _ in stacked}  # fmt: skip
    return {
        "total": parameters(model),
        "linears": [[*row[:4], len(places), *row[4:], _some(places, every)]
                    for row, places in language.items()],
        "stacked": [[*row, sizes[row], targets[row[0]], _some(places, every)]
                    for row, places in stacked.items()],
        "tower": tower,
        "towers": [[*row[:4], len(places), *row[4:], _some(places)]
                   for row, places in towers.items()],
    }  # fmt: skip


def _some(places: list[int], every: int = 0) -> list[int]:
    """The numbers of layers; none where that is every layer."""
    found = sorted(set(places))
    return [] if found == list(range(every)) else found


def _layer(name: str) -> int:
    """The number of the layer that something is in; -1: of none."""
    found = NUMBERED.match(name)
    return int(found[1]) if found else -1


def fields(model: PreTrainedModel) -> dict[str, object]:
    """What a shape needs beside the matrices: of the config, and where it does not say, as built.

    A field that has a value for each layer is the largest of them.
    """
    parts, text = Parts(model), model.config.get_text_config()
    lists = [(name, one) for name, one in model.named_modules()
             if isinstance(one, torch.nn.ModuleList) and not parts.is_tower(name)]  # fmt: skip
    count = _number(text, "num_hidden_layers")
    alike = [one for one in lists if len(one[1]) == count] or lists
    path, stack = max(alike, key=lambda one: parameters(one[1]), default=("model.layers", ()))
    found: dict[str, object] = {
        "num_hidden_layers": len(stack) or 1, "num_attention_heads": 1,  # a state space has none
        "trunk": path.rpartition(".")[0],
    }  # fmt: skip
    with contextlib.suppress(NotImplementedError):  # some classes do not say where it is
        weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
        found |= dict(zip(("vocab_size", "hidden_size"), weight.shape, strict=True))
        found["tie_word_embeddings"] = head is None or head.weight is weight
    return found | {name: value for name in FIELDS if (value := _number(text, name))}


def _number(config: PretrainedConfig, name: str) -> int:
    """A positive number of a config; 0 where it has none."""
    try:
        value = getattr(config, name, None)
    except Exception:  # transformers: fields that differ from layer to layer
        return 0
    found = list(value) if isinstance(value, list | tuple) else [value]
    return max((one for one in found if type(one) is int and one > 0), default=0)


def _numbers(value: object) -> object:
    """A config's content with infinite numbers, which transformers spells in a way of its own."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(str(value["__float__"]))
        return {name: _numbers(one) for name, one in value.items()}
    return [_numbers(one) for one in value] if isinstance(value, list) else value


def answer(question: Mapping[str, object]) -> dict[str, object]:
    """What `holdfast.memory.trace.counts` asked for."""
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
    model = built(config, trust)
    known = fields(model)
    return {**matrices(model), "trunk": known.pop("trunk"), "fields": known}


def main() -> None:
    """Read the question from standard input; write one line, and nothing else, to the output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between
    try:
        found = answer(json.load(sys.stdin))
    except Exception as error:  # any model's own code
        first = (str(error).strip().splitlines() or [""])[0]
        passing = isinstance(error, ImportError | MemoryError | OSError)
        found = {"reason": f"{type(error).__name__}: {first[:300]}", "passing": passing}
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()

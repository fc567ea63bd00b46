"""Loads a GGUF file's weights in full, as transformers maps them, and saves them as safetensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, ModelError, first_line
from holdfast.models import skeleton, weights_check
from holdfast.models.gguf_file import INSTEAD, GGUFFile
from holdfast.types import ModelRef

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PretrainedConfig, PreTrainedModel

POSITIONS = "rope_freqs.weight"
"""A file's own factors of the positions' frequencies, which transformers leaves out."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
"""What every model of the kind has, and only its factors in a GGUF file tell."""


def write(head: GGUFFile, dtype: str, into: Path) -> str:
    """Write the model and its tokenizer into a new folder.

    Args:
        head: of the file.
        dtype: of the weights.
        into: the folder.

    Returns:
        The dtype that they have: float32 where a number is too large for float16.

    Raises:
        ModelError: transformers cannot read it, or weights are missing.
    """
    from transformers import AutoTokenizer

    raw = ModelRef(str(head.path.parent), gguf=head.path.name)
    try:
        with _parsed_once(head.path):
            config = skeleton.read_config(raw)
            tokenizer = AutoTokenizer.from_pretrained(raw.base, **raw.loading())
            model = _loaded(raw, head, config, dtype)
        _scaled_positions(model.config, head)
    except (HoldfastError, MemoryError, OSError):
        raise
    except Exception as error:  # of whatever kind an unknown field makes its reader fail with
        raise ModelError(
            f"transformers cannot read it ({head.architecture}): {type(error).__name__} "
            f"{first_line(error)}",
            where=str(head.path),
            remedy=INSTEAD,
        ) from error
    model.config._name_or_path = ""
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return str(model.dtype).removeprefix("torch.")


def reader(path: Path) -> GGUFReader:
    """llama.cpp's own reader of a GGUF file, several times as fast as it comes."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        def _get(self, *args: Any, **kwargs: Any) -> Any:
            data: Any = np.asarray(self.data)  # slices of a `numpy.memmap` are dear
            self.data = data
            return super()._get(*args, **kwargs)

    return Reader(path)


@contextmanager
def _parsed_once(path: Path) -> Iterator[None]:
    """Keep transformers from parsing the file anew for configuration, tokenizer and weights.

    Each time takes longer than everything else: hundreds of thousands of strings are taken apart,
    and the table of names is built for every module of the model.
    """
    import gguf

    library: Any = gguf
    before = library.GGUFReader, library.get_tensor_name_map
    parsed = reader(path)
    library.GGUFReader, library.get_tensor_name_map = lambda *_: parsed, cache(before[1])
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = before


def _loaded(raw: ModelRef, head: GGUFFile, config: PretrainedConfig, dtype: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.integrations.gguf import GGUF_ARCHS

    # rounded once, from float32: some architectures are expanded in the dtype that is asked for
    first = "float32" if head.architecture in GGUF_ARCHS or dtype == "float16" else dtype
    model, info = AutoModelForCausalLM.from_pretrained(
        raw.base, config=config, dtype=getattr(torch, first), output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True), **raw.loading(),
    )  # fmt: skip
    where = str(head.path)
    weights_check.check_loaded(model, info, where)
    if any(one.dtype == torch.uint8 for one in model.parameters()):
        raise ModelError("its weights stay packed", where=where, remedy=INSTEAD)
    _check_all_used(model, head)
    if dtype == "float16":
        most = max(float(one.detach().abs().max()) for one in model.parameters())
        dtype = dtype if most <= torch.finfo(torch.float16).max else "float32"
    model.to(getattr(torch, dtype))
    model.hf_quantizer = None
    model.is_quantized = False
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    return model


def _check_all_used(model: PreTrainedModel, head: GGUFFile) -> None:
    """Refuse to leave tensors of a file out, which transformers does without a word."""
    factors = head.tensors.get(POSITIONS)
    own = head.numbers - (math.prod(factors.shape) if factors else 0)
    if own > (there := sum(one.numel() for one in model.parameters())):
        raise ModelError(
            f"holds {own - there:,} numbers more than transformers has a place for in a "
            f"{model.config.model_type} model",
            where=str(head.path),
            remedy=INSTEAD,
        )


def _scaled_positions(config: PretrainedConfig, head: GGUFFile) -> None:
    """Give a model of Llama 3.1's kind the scaling of positions that its file has as factors."""
    import numpy as np
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    place = head.tensors.get(POSITIONS)
    if place is None:
        return
    with head.path.open("rb") as file:
        file.seek(place.start)
        factors = np.frombuffer(file.read(place.end - place.start), np.float32)
    plain = dict(config.rope_parameters)
    scaled = {**plain, "rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
    base = plain["rope_theta"] ** (-np.arange(0, 2 * len(factors), 2) / (2 * len(factors)))
    config.rope_parameters = scaled
    found = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    if np.allclose(factors, 1):
        config.rope_parameters = plain
    elif not np.allclose(base / factors, found, rtol=1e-3):
        raise ModelError(
            f"scales its positions ({POSITIONS}) in a way that is not Llama 3's",
            where=str(head.path),
            remedy=INSTEAD,
        )

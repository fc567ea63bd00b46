"""Recognises a model under the names that people type and mirrors give it; needs no network.

`llama-3.1-8b`, `qwen2.5 7b`, `unsloth/Qwen3-8B-bnb-4bit` and `mlx-community/Qwen3-8B-4bit` are
names of models of the catalogue. A name that could be two of different sizes is none: the
neighbours are said instead.

Families are names as well: one that transformers does not know has matrices that nobody here has
seen, so its size is not guessed. `families.json` is the list of transformers 5.23; where a newer
one is installed its own list counts too.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from holdfast.environment import install_command
from holdfast.errors import ModelError

MIRRORS = frozenset({
    "unsloth", "nousresearch", "mlx-community", "thebloke", "bartowski", "lmstudio-community",
    "mradermacher", "quanttrio", "casperhansen", "hugging-quants", "redhatai", "neuralmagic",
    "modelcloud", "cpatonn", "cyankiwi", "kaitchup", "solidrust", "llm-research", "ai-modelscope",
    "zhipuai", "openbmb", "shanghai_ai_laboratory", "ggml-org", "second-state", "thudm",
})  # fmt: skip
"""Owners whose repositories hold other people's models, unchanged or in fewer bits."""
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True,
                "bnb_4bit_use_double_quant": True}  # fmt: skip
GPTQ = {"quant_method": "gptq", "bits": 4}
Stored = Mapping[str, object]
"""A `quantization_config`, as far as a name tells it."""
MLX = "MLX's weights are for Apple's GPUs: counted in 16 bits, as its base is published"
SUFFIXES: tuple[tuple[str, Stored, str], ...] = (
    (r"unsloth bnb 4bit", BITSANDBYTES, "some matrices stay in 16 bits, which is not counted"),
    (r"bnb 4bit|4bit bnb|nf4|bnb nf4", BITSANDBYTES, ""),
    (r"bnb 8bit", {"quant_method": "bitsandbytes", "load_in_8bit": True}, ""),
    (r"awq( int4| 4bit| w4)?|w4a16( awq)?", {"quant_method": "awq", "bits": 4}, ""),
    (r"gptq( int8| 8bit)", GPTQ | {"bits": 8}, ""),
    (r"gptq( int4| 4bit| w4a16)?|int4 w4a16|autoround( gptq)?", GPTQ, ""),
    (r"fp8( dynamic| block| kv)?", {"quant_method": "fp8"}, ""),
    (r"nvfp4|fp4", {"quant_method": "nvfp4", "bits": 4}, ""),
    (r"mxfp4", {"quant_method": "mxfp4"}, ""),
    (r"quantized[ .]w4a16", {"quant_method": "compressed-tensors", "bits": 4}, ""),
    (r"quantized[ .]w8a(8|16)", {"quant_method": "compressed-tensors", "bits": 8}, ""),
    (r"(imatrix |i1 |qat q4[ .]0 )?gguf|q\d([ .]\w){0,2}", {},
     "counted in 16 bits, as GGUF files are written out; name one file: REPOSITORY/FILE.gguf"),
    (r"\d ?bit mlx|mlx( \w+)?|mxfp4 q\d", {}, MLX),
    (r"[2-8] ?bit( dwq)?", BITSANDBYTES, ""),
    (r"bf16|fp16|f16|16bit|hf|safetensors|copy|qat( q4[ .]0)?( unquantized)?", {}, ""),
)  # fmt: skip
"""What names of repositories end in, what that says of the weights, and what to tell the reader."""
DECORATIONS = re.compile(
    r"instruct|it|chat|base|pt|hf|meta|preview|thinking|reasoning|think|sft|dpo|v\d+(\.\d+)?"
    r"|a\d+(\.\d+)?b|2[4-6]\d\d|(0[1-9]|1[0-2])\d\d"
)
"""Words of a name that its size does not depend on, but for the odd version."""
SAME_WORDS = {"it": "instruct", "chat": "instruct", "pt": "base"}
SIZE = re.compile(r"(?<![a-z0-9.])e?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
KIN = 0.7  # how alike the first words of two names are at the least, for neighbours
FAMILIES = Path(__file__).with_name("families.json")
LISTED = "models/auto/auto_mappings.py", "models/auto/configuration_auto.py"
"""Where transformers lists its families, 5 and 4."""
OWN_CODE = frozenset({"minicpm"})
"""Families that come with Python code of their own whose layers are Llama's, as was read there."""


@dataclass(frozen=True, slots=True)
class Meant:
    """A model of the catalogue that a name means.

    Attributes:
        id: of the catalogue.
        stored: how the weights of the named repository lie, as far as its name tells.
        note: what the reader must know.
    """

    id: str
    stored: Stored = field(default_factory=dict)
    note: str = ""


def spaced(name: str) -> str:
    """A name in lower case with its separators as single spaces: `qwen2.5 7b instruct`."""
    lower = unicodedata.normalize("NFKC", name).strip().lower()
    lower = re.sub(r"(?<=\d)_(?=\d)", ".", lower)
    return re.sub(r"[\s_:-]+", " ", lower).strip()


def key(name: str) -> str:
    """What of a name counts: its numbers, and its letters whatever stands between them."""
    joined = re.sub(r"(?<=[a-z]) (?=[a-z])", "", spaced(name))
    return "|".join(re.findall(r"\d+(?:\.\d+)?|[a-z]+", joined))


def bare(name: str) -> str:
    """The key without instruction tuning, dates, versions and active parameters."""
    words = [one for one in spaced(name).split(" ") if not DECORATIONS.fullmatch(one)]
    return key(" ".join(words))


def decorations(name: str) -> set[str]:
    """The words that `bare` leaves out, of one meaning each."""
    words = spaced(name).split(" ")
    found = {SAME_WORDS.get(one, one) for one in words if DECORATIONS.fullmatch(one)}
    return found - {"hf", "meta"}


class Names:
    """All names of a catalogue.

    Args:
        alike: ids by the id of the model whose dimensions they share, in the catalogue's order.
        also: ids by other names of theirs.
    """

    def __init__(self, alike: Mapping[str, Iterable[str]], also: Mapping[str, str]) -> None:
        """Index them."""
        self.entry = {one: first for first, ids in alike.items() for one in ids}
        shorts = {one.rpartition("/")[2].lower(): one for one in reversed(self.entry)}
        self.ids = {**shorts, **{one.lower(): one for one in self.entry}}
        self.said = {key(name): one for name, one in also.items()}

    @cached_property
    def by_key(self) -> dict[str, str]:
        """Ids by what counts of their names; the first of several."""
        return {key(one.rpartition("/")[2]): one for one in reversed(self.entry)}

    @cached_property
    def by_bare(self) -> dict[str, list[str]]:
        """Ids by the bare keys of their names."""
        found: dict[str, list[str]] = {}
        for one in self.entry:
            found.setdefault(bare(one.rpartition("/")[2]), []).append(one)
        return found

    def exact(self, asked: str) -> str | None:
        """The id that is written so, whatever the case, with or without its owner."""
        return self.ids.get(asked.lower())

    def recognise(self, asked: str) -> Meant | None:
        """What a name means that is no id; None: nothing, or models of different sizes."""
        owner, _, short = unicodedata.normalize("NFKC", asked).strip().rpartition("/")
        if found := self.said.get(key(asked)):
            return Meant(found)
        stored: Stored = {}
        words, note = spaced(short), ""
        found = self._plain(words)
        if found is None:
            words, stored, note = _without_suffix(words, owner.lower())
            found = self._plain(words)
        if found is None and "_" in short:  # `Qwen3_8B` is not `Qwen2_5`
            return self.recognise(asked.replace("_", "-"))
        if found is None or not self._may_be(owner.lower(), found):
            return None
        return Meant(found, stored, note)

    def near(self, asked: str) -> list[str]:
        """Up to three ids that look like a name: of its family in near sizes, then others."""
        words = _without_suffix(spaced(asked.rpartition("/")[2]), "")[0]
        found = (self._other_sizes(words) or self._longer(words))[:3]
        shorts = {spaced(one.rpartition("/")[2]): one for one in reversed(self.entry)}
        close = difflib.get_close_matches(words, shorts, n=12, cutoff=0.6)
        kin = {one: _kinship(words, one) for one in close}
        close = sorted((one for one in close if kin[one] > KIN), key=lambda one: -kin[one])
        return list(dict.fromkeys([*found, *(shorts[one] for one in close)]))[:3]

    def _longer(self, words: str) -> list[str]:
        """Ids whose names go on where this one ends: of `phi3` all sizes of Phi-3, one of each."""
        asked = bare(words)
        found: dict[str, str] = {}
        for one in self.entry:
            if asked and bare(one.rpartition("/")[2]).startswith(f"{asked}|"):
                found.setdefault(self.entry[one], one)
        return list(found.values())

    def _may_be(self, owner: str, found: str) -> bool:
        """Whether an owner's repository of this name is that model: its maker's, or a mirror's."""
        return owner in ("", *MIRRORS, found.partition("/")[0].lower())

    def _plain(self, words: str) -> str | None:
        """The id of a name without owner and suffixes."""
        for spelled in (words, f"deepseek {words}", f"meta {words}"):
            if found := self.said.get(key(spelled)) or self.by_key.get(key(spelled)):
                return found
            asked = decorations(spelled)
            fitting = [one for one in self.by_bare.get(bare(spelled), ())
                       if asked <= decorations(one.rpartition("/")[2])]  # fmt: skip
            if len({self.entry[one] for one in fitting}) == 1:
                return min(fitting, key=lambda one: len(decorations(one.rpartition("/")[2])))
        return None

    def _other_sizes(self, words: str) -> list[str]:
        """Ids that differ from a name in nothing but the size, the nearest first."""
        if not (size := _size(words)):
            return []
        family = bare(SIZE.sub("#", words))
        found: dict[float, str] = {}
        for one in self.entry:
            short = spaced(one.rpartition("/")[2])
            if _size(short) and bare(SIZE.sub("#", short)) == family:
                found.setdefault(_size(short), one)
        return [found[one] for one in sorted(found, key=lambda other: abs(math.log(other / size)))]


def _kinship(one: str, other: str) -> float:
    """How alike the families of two names are, by their first words: 0 to 1."""
    first, second = (key(name).partition("|")[0] for name in (one, other))
    return difflib.SequenceMatcher(None, first, second).ratio()


def _size(words: str) -> float:
    """Parameters that a name speaks of, in billions; 0: of none."""
    found = SIZE.search(words)
    return float(found[1]) / (1000 if found[2] == "m" else 1) if found else 0.0


def _without_suffix(words: str, owner: str) -> tuple[str, Stored, str]:
    """A name without what says how the weights are stored; that, and what to tell of it."""
    stored: Stored = {}
    note = ""
    for _ in range(3):
        for ending, says, told in SUFFIXES:
            found = re.fullmatch(rf"(.+?) (?:{ending})", words)
            if found is None:
                continue
            words = found[1]
            if says or told:
                stored, note = says, told
            break
        else:
            break
    if owner == "mlx-community" and stored is BITSANDBYTES:  # its `-4bit` is its own
        stored, note = {}, MLX
    return words, stored, note


def require_family(kind: str, config: Mapping[str, object], name: str) -> None:
    """Refuse a family that nobody has counted.

    Args:
        kind: `model_type` of its config.json.
        config: the whole of it.
        name: the model, for messages.

    Raises:
        ModelError: transformers does not know the family, or none is named.
    """
    if kind in OWN_CODE or is_known(kind):
        return
    if not kind:
        raise ModelError(
            "its config.json has no model_type, so its size is not known",
            where=name,
            remedy="save it again with `model.save_pretrained(folder)`, or check the file",
        )
    close = difflib.get_close_matches(kind, _listed(), n=1, cutoff=0.6)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    own = " (it comes with Python code of its own, which a plan does not run)"
    raise ModelError(
        f"transformers does not know its kind, {kind[:60]!r}{meant}, so its "
        f"size is not known{own if config.get('auto_map') else ''}",
        where=name,
        remedy=f"{install_command('train', 'transformers')} in a version that knows it, or check "
        "model_type in its config.json; for a first idea plan a model of the catalogue that is as "
        "large",
    )


def is_known(kind: str) -> bool:
    """Whether transformers has classes for a `model_type`."""
    return kind in _listed() or kind in _installed()


@cache
def _listed() -> frozenset[str]:
    return frozenset(json.loads(FAMILIES.read_text(encoding="utf-8"))["families"])


@cache
def _installed() -> frozenset[str]:
    """The families that the installed transformers lists, read as text."""
    found = importlib.util.find_spec("transformers")
    if found is None or not found.origin:
        return frozenset()
    kinds: set[str] = set()
    for part in LISTED:
        try:
            text = (Path(found.origin).parent / part).read_text(encoding="utf-8")
        except OSError:
            continue
        kinds |= set(re.findall(r"\(\s*\"([\w.-]+)\",\s*\"\w+Config\"", text))
    return frozenset(kinds)

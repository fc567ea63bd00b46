"""Whatever a study file, an override or a name holds: it is read, or a typed error says where."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from fixtures.hostile import NAMES, PATTERNS
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import load
from holdfast.config.patterns import pattern_fault
from holdfast.config.section import LONGEST_NAME, made_usable, twins, unusable
from holdfast.config.sweeps import expand
from holdfast.config.yaml_text import read_yaml
from holdfast.errors import HoldfastError, StudyError, UsageError
from holdfast.models import external

GOOD: dict[str, Any] = {
    "name": "tiny", "model": "lab", "seeds": [1126],
    "tasks": {"lab_math": {"role": "target", "items": 4, "train_items": 8}, "lab_refuse": {}},
    "train": {"lora": {"r": 4}, "learning_rate": 1e-3, "max_steps": 2},
    "arms": {"sft": {}, "kl": {"loss": ["kl"], "train": {"learning_rate": [1e-4, 1e-3]}}},
}  # fmt: skip
KEYS = [
    "name", "model", "seeds", "tasks", "train", "arms", "answer", "ship", "hardware", "meters",
    "id",
    "lora", "r", "learning_rate", "lr", "max_steps", "checkpoints", "save_steps", "from", "data",
    "loss", "weights", "ask", "replay", "kl", "scale", "factors", "share", "sampling", "retain",
    "lab_math", "sft", "role", "items", "limit", "kind", "path", "judge", "target_modules", "optim",
]  # fmt: skip
NUMBERS = (
    st.integers()
    | st.floats(allow_subnormal=False)
    | st.sampled_from([0, -1, 1, 2, 10**12, 1e-9, 1e300])
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=12) | st.sampled_from(KEYS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6) | NUMBERS, inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = st.lists(st.sampled_from(KEYS) | st.text(max_size=4), min_size=1, max_size=4)


def typed(work: Callable[[], object]) -> None:
    """It works, or says what is wrong, where, and what to do; nothing of it rings a terminal."""
    try:
        work()
    except HoldfastError as error:
        assert error.exit_code == 3 and error.where and error.remedy, repr(error)
        said = str(error)
        marks = {one for one in said if unicodedata.category(one) in ("Cc", "Cf", "Cs")}
        assert len(said) < 20_000 and marks <= {"\n"}, repr(said)


@given(st.text() | st.text("{}[]:,-&*!|>'\"%@`#? \n\tab01.~<=", max_size=60))
def test_any_text_as_a_study(text: str) -> None:
    typed(lambda: read_yaml(text, "s.yaml", "mend it"))


@given(PATHS, VALUES)
def test_any_value_anywhere_in_a_study(path: list[str], value: object) -> None:
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    inner = data
    for key in path[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[path[-1]] = value
    typed(lambda: expand(load.build(data, (), "s.yaml")))


@given(st.text(max_size=40), st.text(max_size=40) | VALUES.map(lambda one: yaml.safe_dump(one)))
def test_any_override(key: str, value: str) -> None:
    typed(lambda: expand(load.load(GOOD, [f"{key}={value}"])))


@given(PATHS, VALUES)
def test_any_value_as_an_override(path: list[str], value: object) -> None:
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    typed(lambda: expand(load.load(GOOD, [f"{'.'.join(path)}={text}"])))


@given(st.recursive(
    st.booleans() | st.integers(-(10**17), 10**17) | st.text("abc xyz:-#'\"\n", max_size=9)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab ", max_size=3), inner,
                                                               max_size=3),
))  # fmt: skip
def test_what_yaml_writes_is_read_as_it_was(value: object) -> None:
    assert read_yaml(yaml.safe_dump(value), "s.yaml", "")[0] == value


@given(st.text(max_size=150) | st.text("aB0.-_", max_size=130) | st.sampled_from(NAMES))
def test_any_text_makes_a_usable_name(text: str) -> None:
    name = made_usable(text)
    assert not unusable(name) and made_usable(name) == name
    assert len(f"{name}.tmp".encode()) <= 255
    if not unusable(text) and text.strip("-._") == text:
        assert name == text


def test_what_no_folder_can_be_called_is_refused_wherever_it_is_said() -> None:
    for name in NAMES:
        for section in ("arms", "tasks"):
            data = yaml.safe_load(yaml.safe_dump(GOOD))
            data[section][name] = {"kind": "lab_math"} if section == "tasks" else {}
            with pytest.raises(StudyError, match="name"):
                load.build(data, (), "s.yaml")
        with pytest.raises(StudyError, match=r"name"):
            load.build(GOOD | {"name": name}, (), "s.yaml")


@pytest.mark.parametrize("name", ["a.tmp", "a.", "con", "NUL.x", "x" * 101, "Base"])
def test_a_model_of_a_comparison_is_called_by_the_same_rule(name: str) -> None:
    with pytest.raises(UsageError, match=r"name|'base'"):
        external.find(f"{name}=lab")


def test_names_that_are_one_folder_somewhere() -> None:
    assert twins(["a", "b", "A", "a-1"]) == ["a", "A"] and twins(["a", "b"]) == []
    with pytest.raises(StudyError, match="differ in case only"):
        load.build(GOOD | {"arms": {"sft": {}, "Sft": {}}}, (), "s.yaml")


def test_long_names_are_cut_and_stay_apart() -> None:
    first, second = (made_usable("owner/" + "x" * 300 + end) for end in ("a", "b"))
    assert first != second and len(first) == len(second) == LONGEST_NAME


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_patterns_that_no_matching_ends_are_refused(pattern: str) -> None:
    assert pattern_fault(pattern)
    with pytest.raises(StudyError, match="target_modules"):
        load.build(GOOD | {"train": {"lora": {"target_modules": pattern}}}, (), "s.yaml")


@pytest.mark.parametrize(
    "pattern",
    [r".*\.(q_proj|v_proj)", r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj", r".*(?<!gate)_proj",
     r"^(?!.*vision).*layers\.(1[0-9]|2[0-3])\..*(q|k|v|o)_proj$"],
)  # fmt: skip
def test_patterns_that_people_write_are_read(pattern: str) -> None:
    assert not pattern_fault(pattern)

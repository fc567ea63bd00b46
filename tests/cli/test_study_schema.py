"""The schema accepts what a study may hold, and refuses what `holdfast run` refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.paths import ROOT

from holdfast.cli.study_schema import study_schema
from holdfast.config import load
from holdfast.config.recipes import recipes
from holdfast.errors import StudyError
from holdfast.registry import Registry

jsonschema = pytest.importorskip("jsonschema")
STUDIES = [*recipes().values(), *sorted((ROOT / "examples").glob("*.yaml"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEAD = "name: x\nmodel: lab\ntasks: {lab_math: {role: target}"
TASKS, ARMS = HEAD + ", %s}", HEAD + "}\narms: {a: %s}"
GOOD = [
    TASKS % "gsm8k: {limit: 3, shots: {n: 2}, sampling: {max_tokens: 4}}",
    TASKS % "a/b.py_is_no_kind: {kind: a/b.py:Mine, anything: [1, {two: 3}]}",
    TASKS % "m: {kind: jsonl, path: [a.jsonl, {hub: a/b, count: 3}], columns: {prompt: q}}",
    TASKS % "m: {kind: ailuminate, path: a.csv, judge: {qwen3guard: {controversial: safe}}}",
    TASKS % "m: {kind: ailuminate, path: a.csv, judge: mine.py:Judge}",
    TASKS % "lab_refuse: ",
    ARMS % "{data: replay, loss: [kl, {mine.py:Loss: {a: 1}}]}",
    ARMS % "{data: [{replay: }], train: {lr: [0.1, 0.2], lora_r: 4, lora: {alpha: [1, 2]}}}",
    ARMS % "{from: base, ask: {system_prompt: {text: Hm.}}}",
    HEAD + "}\nhardware: auto\ntrack: {mlflow: {}, tensorboard: }",
    HEAD + "}\ntrack: [wandb, {mine.py:Tracker: {a: 1}}]",
    HEAD + "}\ntrain: {cutoff_len: 8, use_dora: true, warmup_ratio: 0.1, lora_target: all}",
    HEAD + "}\nmodel: {base: a, gguf: b.gguf, thinking: auto}".replace("\nmodel: lab", ""),
]
BAD = {
    TASKS % "lab_help: {item: 3}": "item",
    TASKS % "nothing_such: {limit: 3}": "kind",
    TASKS % "m: {kind: jsnol, path: a}": "jsnol",
    TASKS % "m: {kind: jsonl, path: a, grader: numbr}": "numbr",
    TASKS % "xstest: {path: a.csv}": "half",
    TASKS % "m: {kind: ailuminate, path: a, judge: {qwen3guard: {threshold: 1}}}": "threshold",
    TASKS % "m: {kind: ailuminate, path: a, judge: nobody}": "nobody",
    ARMS % "{data: [{replay: {shar: 1}}]}": "shar",
    ARMS % "{data: [kl]}": "kl",
    ARMS % "{loss: [{kl: {}, ewc: {}}]}": "kl",
    ARMS % "{train: {num_train_epochs: 2}}": "num_train_epochs",
    ARMS % "{train: {lora: {rr: 2}}}": "rr",
    HEAD + "}\ntrain: {learning_rat: 1}": "learning_rat",
    HEAD + "}\ntrain: {per_device_train_batch_size: 0}": "0",
    HEAD + "}\ntrack: [wand]": "wand",
    HEAD + "}\nanswer: {engine: vlm}": "vlm",
}


class Loader(yaml.SafeLoader):
    """YAML 1.2, as editors read it: 2e-4 is a number, a date is text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, how) for tag, how in kinds if not tag.endswith("timestamp")]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(json.dumps(study_schema()))  # nothing in it that JSON has not


def _faults(schema: dict[str, Any], study: object) -> list[Any]:
    return list(jsonschema.Draft202012Validator(schema).iter_errors(study))


def test_it_is_a_schema_with_a_name(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert re.fullmatch(r"urn:holdfast:study:\d+\.\d+\.\d+", schema["$id"])
    wanted = set(re.findall(r"#/\$defs/([^\"]+)", json.dumps(schema)))
    assert wanted <= set(schema["$defs"])
    assert set(schema["$defs"]) <= wanted, "nothing that nobody names"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_studies_that_come_along_pass(schema: dict[str, Any], file: Path) -> None:
    assert not _faults(schema, yaml.load(file.read_text("utf-8"), Loader))


def test_parts_of_studies_in_the_docs_pass(schema: dict[str, Any]) -> None:
    seen = 0
    for page in PAGES:
        for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            try:
                part = yaml.load(text, Loader)
            except yaml.YAMLError:  # several ways to write one list, each on a line
                continue
            if isinstance(part, dict) and set(part) <= set(schema["properties"]):
                whole = {"name": "x", "model": "lab", "tasks": {}, **part}
                faults = [one for one in _faults(schema, whole) if one.validator != "required"]
                faults = [one for one in faults if one.validator != "minProperties"]
                assert not faults, f"{page.name}: {faults[0].message}\n{text}"
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("text", GOOD)
def test_what_a_study_may_hold_passes(schema: dict[str, Any], text: str) -> None:
    assert not _faults(schema, yaml.load(text, Loader))


@pytest.mark.parametrize(("text", "named"), BAD.items())
def test_what_no_study_may_hold_is_named(schema: dict[str, Any], text: str, named: str) -> None:
    faults = _faults(schema, yaml.load(text, Loader))
    assert faults and named in faults[0].message


@pytest.mark.parametrize("text", GOOD)
def test_the_good_are_good_to_us_too(text: str) -> None:
    """As far as the file alone tells: plug-ins are built later."""
    if "py_is_no_kind" not in text:
        assert load.build(yaml.safe_load(text), (), "test")


@pytest.mark.parametrize("text", [one for one in BAD if "train" in one and "arms" not in one])
def test_the_bad_are_bad_to_us_too(text: str) -> None:
    with pytest.raises(StudyError):
        load.build(yaml.safe_load(text), (), "test")


def test_every_plug_in_is_in_it(schema: dict[str, Any]) -> None:
    from holdfast import engines, judges, methods, tasks
    from holdfast.report import trackers

    text = json.dumps(schema)
    registries: list[Registry[Any]] = [
        tasks.REGISTRY, methods.REGISTRY, judges.REGISTRY, engines.REGISTRY, trackers.REGISTRY
    ]  # fmt: skip
    for registry in registries:
        for name in registry.names():
            assert f'"{name}"' in text
            keys = getattr(registry.find(name).make, "Options", None)
            for key in keys.model_fields if keys else ():
                assert f'"{key}"' in text, f"{name}.{key}"

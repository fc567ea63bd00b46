"""The JSON schema of a study file, the keys of every task, method, judge and tracker included.

`Study` alone knows the frame: what stands under a task belongs to its kind. Here the options of all
plug-ins that can be found are put in their places, told apart by the name that they stand under, so
that an editor completes and checks them. What is accepted beside a field's own name (`lr`, a bare
model name, `data: replay`) is accepted here too. Plug-ins in files of the user's own are not run:
whatever stands under them passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TypeAlias, TypeVar, cast, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from holdfast.config import ModelSpec, Sampling, Study, TaskSpec, TrainSpec
from holdfast.config.arms import ArmSpec
from holdfast.config.data import SourceSpec
from holdfast.config.lora import NOT_HERE, SWITCHES, LoraSpec
from holdfast.config.names import ELSEWHERE, own_names
from holdfast.config.sweeps import EQUAL
from holdfast.registry import Registry

Json: TypeAlias = dict[str, object]
Kind = TypeVar("Kind")
ID = "urn:holdfast:study:"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
FILE = r"\.py:\w+$"
"""The name of a class in a file of the user's own."""
ENTRIES = ("data", "loss", "weights", "ask")
TEXT: Json = {"type": "string"}
NOTHING: Json = {"type": "null"}


def study_schema() -> Json:
    """The schema, for JSON as for YAML (draft 2020-12); its `$id` names the version."""
    return _Writing().whole()


class _Writing:
    """One schema under way; `defs` has every section by its name."""

    def __init__(self) -> None:
        from holdfast import engines, judges, methods, tasks
        from holdfast.report import trackers

        self.tasks = {name: tasks.REGISTRY.find(name).make for name in tasks.REGISTRY.names()}
        self.judges = _options(judges.REGISTRY)
        self.trackers = _options(trackers.REGISTRY)
        self.engines = engines.REGISTRY.names()
        found = {name: methods.REGISTRY.find(name).make for name in methods.REGISTRY.names()}
        self.methods = {
            entry: {name: make.Options for name, make in found.items() if make.entry == entry}
            for entry in ENTRIES
        }
        sections: list[type[BaseModel]] = [Study, Sampling]
        sections += [*self.judges.values(), *self.trackers.values()]
        sections += [make.Options for make in self.tasks.values()]
        sections += [one for group in self.methods.values() for one in group.values()]
        self.sections = list(dict.fromkeys(_inner(sections)))
        mode: JsonSchemaMode = "validation"
        refs, made = models_json_schema([(one, mode) for one in self.sections], by_alias=False)
        self.names = {one: str(refs[one, mode]["$ref"]).rpartition("/")[2] for one in self.sections}
        self.defs: dict[str, Json] = made["$defs"]

    def whole(self) -> Json:
        """Everything in its place."""
        for section in self.sections:
            self._short_forms(self.of(section))
            self._other_names(section)
        self._train()
        study = self.of(Study)
        keys = _keys(study)
        _replace(keys["model"], TEXT, self._model())
        _replace(keys["hardware"], {"const": "auto"}, _bare(keys["hardware"]))
        keys["tasks"] |= self._tasks()
        arms = cast(Json, keys["arms"]["additionalProperties"])
        keys["arms"]["additionalProperties"] = _or_nothing(arms)
        _become(keys["track"], _steps(self._plugins(self.trackers), mapping=True))
        arm = _keys(self.of(ArmSpec))
        for entry, known in self.methods.items():
            _become(arm[entry], _steps(self._plugins(known)))
        answer = _keys(self.defs["AnswerSpec"])
        answer["engine"] |= _any({"enum": self.engines}, {"pattern": FILE})
        head = {"$schema": DRAFT, "$id": f"{ID}{version('holdfast')}"}
        whole: Json = {**head, **study, "title": "A study file of Holdfast"}
        return {**whole, "$defs": {name: self.defs[name] for name in self._used(whole)}}

    def _used(self, whole: Json) -> list[str]:
        """The sections that are named, from the frame or from one another, in their own order."""
        used: set[str] = set()
        todo = [whole]
        while todo:
            found = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(todo.pop()))) - used
            used |= found
            todo += [self.defs[name] for name in found]
        return [name for name in self.defs if name in used]

    def of(self, section: type[BaseModel]) -> Json:
        """A section's schema, to be changed."""
        return self.defs[self.names[section]]

    def ref(self, section: type[BaseModel]) -> Json:
        """Names it."""
        return {"$ref": f"#/$defs/{self.names[section]}"}

    def _model(self) -> Json:
        found = self.of(ModelSpec)
        _keys(found)["gguf"] = {**TEXT, "description": "A GGUF file in the folder `id`."}
        found["required"] = []
        return found | _any({"required": ["id"]}, {"required": ["base"]})

    def _other_names(self, section: type[BaseModel]) -> None:
        keys = _keys(self.of(section))
        for name, own in own_names(section).items():
            if name != own:
                keys[name] = {**keys[own], "description": f"The same as `{own}`."}

    def _short_forms(self, found: Json) -> None:
        """One value where a list is wanted; a path where a source is; text that holds pairs."""
        source: Json = {"$ref": f"#/$defs/{self.names[SourceSpec]}"}
        for name, key in _keys(found).items():
            listed = [one for one in (key, *_alternatives(key)) if one.get("type") == "array"]
            if any(one.get("items") == source for one in listed):
                one = _any(TEXT, source)
                lists: Json = {"type": "array", "items": one, "minItems": 1}
                rest = [NOTHING] * (NOTHING in _alternatives(key))
                _replace(key, TEXT, source, lists, *rest)
            elif name in ONE_OR_MORE and listed:
                items = cast(Json, listed[0].get("items", {}))
                _replace(key, items, *(_alternatives(key) or [_bare(key)]))
            elif name in ("lr_scheduler_kwargs", "optim_args"):
                _replace(key, TEXT, _bare(key))

    def _train(self) -> None:
        """Names of other programs under `train`, and an arm's settings, where lists are sweeps."""
        train, lora = self.of(TrainSpec), self.of(LoraSpec)
        keys = _keys(train)
        for name in SWITCHES:
            _keys(lora)[name] = {"type": "boolean", "description": "PEFT's; see `variant`."}
        for name in NOT_HERE:
            _keys(lora)[name] = {"enum": [None, False], "description": "PEFT's; not used here."}
        for name, (own, _) in ELSEWHERE.items():
            keys[name] = {"description": f"Another program's name for `{own}`."}
        every = own_names(TrainSpec)
        swept = {
            name: _swept(key)
            for name, key in keys.items()
            if every.get(name, ELSEWHERE.get(name, ("",))[0]) not in EQUAL and name != "lora"
        }
        swept["lora"] = {
            "type": "object", "additionalProperties": False,
            "properties": {name: _swept(key) for name, key in _keys(lora).items()},
        }  # fmt: skip
        dotted = {f"lora.{name}": key for name, key in _keys(swept["lora"]).items()}
        self.defs["ArmTrain"] = {
            "type": "object", "additionalProperties": False, "properties": swept | dotted,
            "description": "Settings of `train` that differ for an arm; a list is a sweep.",
        }  # fmt: skip
        _become(_keys(self.of(ArmSpec))["train"], {"$ref": "#/$defs/ArmTrain"})

    def _tasks(self) -> Json:
        """Sections of tasks, told apart by `kind`, or else by their names."""
        frame = self.of(TaskSpec)
        common = _keys(frame)
        _become(common["sampling"], self.ref(Sampling))
        _become(common["judge"], _or_nothing(self._plugins(self.judges)))
        by_kind: list[Json] = []
        named: dict[str, Json] = {}
        for name, make in self.tasks.items():
            own = self.of(make.Options)
            self.defs[f"Task.{name}"] = {
                "title": name, "type": "object", "description": (make.__doc__ or "").strip(),
                "properties": {**common, **_keys(own)}, "additionalProperties": False,
                "required": own.get("required", []),
            }  # fmt: skip
            here = {"$ref": f"#/$defs/Task.{name}"}
            is_it: Json = {"required": ["kind"], "properties": {"kind": {"const": name}}}
            by_kind.append({"if": is_it, "then": here})
            other: Json = {"required": ["kind"], "properties": {"kind": {"type": "string"}}}
            named[name] = {"if": other, "then": {"$ref": "#/$defs/Task"}, "else": here}
            if not own.get("required"):
                named[name] = _or_nothing(named[name])
        kinds = _any({"enum": [*self.tasks]}, {**TEXT, "pattern": FILE})
        self.defs["Task"] = {
            "type": "object", "required": ["kind"], "allOf": by_kind,
            "properties": {**common, "kind": {**common["kind"], **kinds}},
        }  # fmt: skip
        _keys(self.defs["Task"])["kind"].pop("default", None)
        return {"properties": named, "additionalProperties": {"$ref": "#/$defs/Task"}}

    def _plugins(self, known: Mapping[str, type[BaseModel]]) -> Json:
        """A plug-in by its name alone, or `{name: {settings}}`."""
        bare = [name for name, one in known.items() if not self.of(one).get("required")]
        keys: dict[str, Json] = {
            name: self.ref(one) if name not in bare else _or_nothing(self.ref(one))
            for name, one in known.items()
        }
        whole: Json = {
            "type": "object", "properties": keys, "additionalProperties": False,
            "patternProperties": {FILE: {"type": ["object", "null"]}},
            "minProperties": 1, "maxProperties": 1,
        }  # fmt: skip
        name = _any({"enum": bare}, {"pattern": FILE})
        return {"type": ["string", "object"], "if": TEXT, "then": name, "else": whole}


ONE_OR_MORE = {
    "layers", "layers_pattern", "modules_to_save", "trainable_token_indices", "stop", "unsolved",
}  # fmt: skip
"""Fields of lists that also take one value."""


def _options(registry: Registry[Kind]) -> dict[str, type[BaseModel]]:
    return {name: registry.find(name).options for name in registry.names()}


def _inner(sections: list[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The sections, and those inside them."""
    seen: set[object] = set()
    todo: list[object] = list(reversed(sections))
    while todo:
        one = todo.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one in seen:
                continue
            seen.add(one)
            yield one
            todo += [field.annotation for field in one.model_fields.values()]
        else:
            todo += get_args(one)


def _keys(section: Json) -> dict[str, Json]:
    return cast("dict[str, Json]", section.setdefault("properties", {}))


def _any(*choices: Json) -> Json:
    return {"anyOf": list(choices)}


def _alternatives(key: Json) -> list[Json]:
    return cast("list[Json]", key.get("anyOf", []))


SAID = ("description", "default", "title")


def _bare(key: Json) -> Json:
    """A key without what is said of it."""
    return {name: value for name, value in key.items() if name not in SAID}


def _become(key: Json, other: Json) -> None:
    """Let a key be what another schema says; what is said of it stays."""
    kept = {name: key[name] for name in SAID if name in key}
    key.clear()
    key |= {**kept, **other}


def _replace(key: Json, *choices: Json) -> None:
    """Let a key be one of these and nothing else."""
    distinct = [one for index, one in enumerate(choices) if one not in choices[:index]]
    _become(key, _any(*distinct))


def _or_nothing(one: Json) -> Json:
    """The same, or an empty entry; said so that an editor names what is wrong inside."""
    return {"if": NOTHING, "then": {}, "else": one}


def _swept(key: Json) -> Json:
    one = _bare(key)
    said = {"description": key["description"]} if "description" in key else {}
    return {**said, **_any(one, {"type": "array", "items": one, "minItems": 1})}


def _steps(one: Json, mapping: bool = False) -> Json:
    """One plug-in, or a list of them.

    Args:
        one: a plug-in.
        mapping: several names in one mapping are a list too.
    """
    alone = one
    if mapping:
        whole = cast(Json, one["else"])
        several = {name: value for name, value in whole.items() if name != "maxProperties"}
        alone = {**one, "else": several}
    return {"if": {"type": "array"}, "then": {"items": one}, "else": alone}

"""Study files: every mistake is named with place and remedy; paths are taken from the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from holdfast import config
from holdfast.config import Study, TrainSpec, load, places
from holdfast.config.recipes import recipe_file
from holdfast.errors import StudyError

GOOD = """\
name: s
model: lab
tasks:
  lab_math: {role: target}
  lab_help:
train:
  learning_rate: 1e-4
arms:
  sft:
"""


def _load(tmp_path: Path, text: str, *overrides: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load.load(path, overrides)


def test_a_good_file(tmp_path: Path) -> None:
    study = _load(tmp_path, GOOD)
    assert study.targets == ("lab_math",)
    assert study.model.id == "lab"
    assert study.train.learning_rate == 1e-4
    assert list(study.arms) == ["sft"]


def test_the_starting_recipe_is_the_default() -> None:
    train = TrainSpec()
    assert (train.lora.r, train.lora.alpha, train.lora.dropout) == (16, 16, 0.05)
    assert train.lora.target_modules == "all-linear"
    assert (train.per_device_train_batch_size, train.accumulation) == (1, 4)
    assert (train.optim, train.num_train_epochs) == ("paged_adamw_32bit", 2)
    assert (train.learning_rate, train.lr_scheduler_type) == (2e-4, "linear")
    assert (train.logging_steps, train.save_steps, train.group_by_length) == (0.1, 0.1, True)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("learning_rate", "learning_rat"), r"study\.yaml:7: train\.learning_rat.*'learning_rate'"),
        (("1e-4", "fast"), r"study\.yaml:7: train\.learning_rate: .*number.*'fast'"),
        (("1e-4", "-1"), r"train\.learning_rate: .*greater than 0"),
        (("role: target", "role: goal"), r"study\.yaml:4: tasks\.lab_math\.role: .*'target'"),
        (("role: target", "role: retained"), r"at least one task needs `role: target`"),
        (("name: s", "nam: s"), r"line 1: nam: unknown key \(did you mean 'name'\?\)"),
        (("model: lab\n", ""), r"model: is required"),
        (("  sft:\n", "  base:\n"), r"cannot be called 'base'"),
        (("arms:\n  sft:\n", "arms: {}\n"), r"arms: .*at least 1"),
        (("name: s", "name: a/b"), r"study\.yaml:1: name: "),
        (("  sft:\n", "  sft: {data: [{a: {}, b: {}}]}\n"), r"each entry is one method"),
        (("train:\n", "train:\n  lora: {rnak: 3}\n"), r"train\.lora\.rnak: unknown key.*'rank'"),
        (("train:\n", "train:\n  global_batch_size: 3\n  micro_batch_size: 2\n"), "not a multiple"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], wanted: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(StudyError, match=wanted) as caught:
        _load(tmp_path, GOOD.replace(*change))
    assert "→" in str(caught.value), "every error names a remedy"


def test_broken_yaml_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml:2: is not valid YAML"):
        _load(tmp_path, "name: s\n  model: [")
    with pytest.raises(StudyError, match="empty"):
        _load(tmp_path, "")
    with pytest.raises(StudyError, match="No such file"):
        load.load(tmp_path / "none.yaml")


def test_overrides_win_under_any_name(tmp_path: Path) -> None:
    study = _load(tmp_path, GOOD, "train.lr=0.5", "seeds=[1, 2]", "arms.replay.data=[replay]")
    assert study.train.learning_rate == 0.5
    assert study.seeds == (1, 2)
    assert study.arms["replay"].data == ({"replay": None},)
    with pytest.raises(StudyError, match="not an override"):
        _load(tmp_path, GOOD, "train.lr")
    with pytest.raises(StudyError, match=r"train\.lrr: unknown key"):
        _load(tmp_path, GOOD, "train.lrr=1")
    with pytest.raises(StudyError, match="not a section"):
        _load(tmp_path, GOOD, "name.x=1")


def test_an_override_that_says_null_leaves_out_what_the_study_named(tmp_path: Path) -> None:
    """As the forecast advises; the arm became one with nothing but its name before."""
    more = GOOD.replace("arms:\n", "arms:\n  kl: {loss: [kl]}\n")
    assert set(_load(tmp_path, more).arms) == {"sft", "kl"}
    assert set(_load(tmp_path, more, "arms.kl=null").arms) == {"sft"}
    assert set(_load(tmp_path, more, "arms.kl=").arms) == {"sft"}
    assert set(_load(tmp_path, more, "arms.kl={}").arms) == {"sft", "kl"}
    with pytest.raises(StudyError, match=r"no arms\.kll to leave out \(did you mean 'kl'"):
        _load(tmp_path, more, "arms.kll=null")
    with pytest.raises(StudyError, match="this study has"):
        _load(tmp_path, more, "tasks.other=null")
    assert _load(tmp_path, more, "train.max_steps=null").train.max_steps is None


@pytest.mark.parametrize("recipe", ["hw6", "jsonl", "lab"])
def test_recipes_are_valid_studies(recipe: str) -> None:
    assert load.load(recipe_file(recipe)).arms


def test_every_field_is_documented() -> None:
    sections = {
        one for one in vars(config).values() if isinstance(one, type) and issubclass(one, BaseModel)
    }
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"


def test_a_study_is_a_file_or_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD, encoding="utf-8")
    mapping = {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}}
    assert load.load(str(path), overrides=["train.epochs=1"]) == load.load(path, ["train.epochs=1"])
    study = load.load(mapping, overrides=["tasks.lab_math.limit=3"])
    assert study.tasks["lab_math"].limit == 3
    assert mapping["tasks"] == {"lab_math": {"role": "target"}}, "what was given stays as it is"
    with pytest.raises(StudyError, match="study: model: is required"):
        load.load({"name": "s", "tasks": {"lab_math": {"role": "target"}}})


PATHS = """\
name: s
model: {model}
tasks:
  gsm8k: {{role: target, path: data/gsm8k, train_path: ../train.jsonl}}
  arc: {{kind: harness, task: mine.yaml, include_path: more, overrides: {{dataset_path: ai2_arc}}}}
  mine: {{kind: own.py:Mine, path: /there/x.jsonl}}
  named: {{kind: harness, task: arc_easy}}
  judged:
    kind: jsonl
    path: x.jsonl
    judge:
      ensemble:
        judges:
          - guards/own.py:Guard
          - qwen3guard: {{model: models/guard}}
          - remote: {{url: "http://localhost/v1", model: local, cache: kept, extra: {{path: x}}}}
arms:
  sft:
  taught: {{loss: [{{gkd: {{teacher: models/teacher}}}}]}}
  shown: {{data: [{{replay: {{path: old.jsonl}}}}, {{"my/way.py:Way": {{x: 1}}}}, own.py:Other]}}
  told: {{ask: [{{system_prompt: {{text: data/gsm8k}}}}]}}
"""


def _extra(study: Study, task: str) -> dict[str, object]:
    return dict(study.tasks[task].model_extra or {})


def test_paths_are_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "studies"
    for name in ("models/teacher", "local", "lab", "Qwen/Qwen2.5"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "elsewhere" / "models" / "guard").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = _load(folder, PATHS.format(model="Qwen/Qwen2.5"))
    assert study.model.id == f"{folder}/Qwen/Qwen2.5", "a folder beside the study is meant"
    assert _extra(study, "gsm8k") == {
        "path": f"{folder}/data/gsm8k", "train_path": f"{folder}/../train.jsonl",
    }  # fmt: skip
    assert _extra(study, "arc") == {
        "task": f"{folder}/mine.yaml", "include_path": f"{folder}/more",
        "overrides": {"dataset_path": "ai2_arc"},
    }  # fmt: skip
    assert _extra(study, "named") == {"task": "arc_easy"}
    assert study.tasks["mine"].kind == f"{folder}/own.py:Mine"
    assert _extra(study, "mine") == {"path": "/there/x.jsonl"}
    assert study.tasks["judged"].judge == {
        "ensemble": {
            "judges": [
                f"{folder}/guards/own.py:Guard",
                {"qwen3guard": {"model": "models/guard"}},  # no such folder there: on the hub
                {"remote": {
                    "url": "http://localhost/v1", "model": "local", "cache": f"{folder}/kept",
                    "extra": {"path": "x"},
                }},
            ]
        }
    }  # fmt: skip
    assert study.arms["taught"].loss == ({"gkd": {"teacher": f"{folder}/models/teacher"}},)
    assert study.arms["shown"].data == (
        {"replay": {"path": f"{folder}/old.jsonl"}},
        {f"{folder}/my/way.py:Way": {"x": 1}},
        {f"{folder}/own.py:Other": None},
    )
    assert study.arms["told"].ask == ({"system_prompt": {"text": "data/gsm8k"}},)
    assert _load(folder, PATHS.format(model="lab")).model.id == "lab", "the built-in model"
    assert _load(folder, PATHS.format(model="./new")).model.id == f"{folder}/new"
    assert _load(folder, PATHS.format(model="org/model")).model.id == "org/model"


def test_paths_of_overrides_are_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, folder = tmp_path / "here", tmp_path / "studies"
    for place in (here / "model", folder):
        place.mkdir(parents=True)
    monkeypatch.chdir(here)
    overrides = (
        "model=model", "tasks.gsm8k.path=mine", "tasks.mine.kind=own.py:Mine",
        "arms.taught.loss=[{gkd: {teacher: ./model}}]", "tasks.arc.overrides.dataset_path=mine",
        "tasks.judged.judge={remote: {url: 'http://h/v1', model: model}}",
    )  # fmt: skip
    study = _load(folder, PATHS.format(model="lab"), *overrides)
    assert study.model.id == f"{here}/model"
    assert _extra(study, "gsm8k") == {
        "path": f"{here}/mine", "train_path": f"{folder}/../train.jsonl",
    }  # fmt: skip
    assert study.tasks["mine"].kind == f"{here}/own.py:Mine"
    assert study.arms["taught"].loss == ({"gkd": {"teacher": f"{here}/model"}},)
    assert _extra(study, "arc")["overrides"] == {"dataset_path": "mine"}
    assert study.tasks["judged"].judge == {"remote": {"url": "http://h/v1", "model": "model"}}
    again = places.anchored(study.model_dump(mode="json", exclude_unset=True), tmp_path)
    assert isinstance(again, dict)
    assert load.load(again) == study, "what a run folder keeps is anchored already"


def test_a_setting_of_a_model_that_is_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: s\nmodel: lab\ntasks: {lab_math: {role: target}}\n", encoding="utf-8")
    found = load.load(path, ["model.thinking=true", "model.template_kwargs.level=2"]).model
    assert (found.id, found.thinking, found.template_kwargs) == ("lab", True, {"level": 2})

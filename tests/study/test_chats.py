"""Are a study's chat settings used by all that asks, and its templates looked at beforehand?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.study import write_study

from holdfast import models, study
from holdfast.comparison import plan as plan_comparison
from holdfast.comparison.request import Request
from holdfast.config import ModelSpec, load
from holdfast.data import chat
from holdfast.errors import ModelError, StudyError
from holdfast.shipping.export import export
from holdfast.study.preflight import check_chats
from holdfast.types import Message

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ strftime_now('%Y') }} {{ m.content }}"
    "{{ mood }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)
ONE = (Message("user", "Tom has 3 apples."),)


def written(folder: Path, model: dict[str, Any], **changes: Any) -> Path:
    path = write_study(folder, folder, **changes)
    text = yaml.safe_load(path.read_text(encoding="utf-8")) | {"model": model}
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return path


def session_of(folder: Path, model: dict[str, Any], **changes: Any) -> Any:
    path = written(folder, model, **changes)
    return study.prepare(load.load(path), folder / "run", str(path))


@pytest.fixture()
def own(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    (tmp_path / "mine.jinja").write_text(TEMPLATE, encoding="utf-8")
    return {"id": str(tiny_model), "chat_template": "mine.jinja", "template_kwargs": {"mood": "!"}}


def test_the_studys_template_is_used_and_its_date_said(tmp_path: Path, own: dict[str, Any]) -> None:
    session = session_of(tmp_path, own)
    [said] = [one for one in check_chats(session) if "clock" in one]
    assert "it is told 2024-07-26" in said
    tokenizer = models.load_tokenizer(session.plan.model)
    assert chat.prompt_text(tokenizer, ONE).startswith("<|im_start|>user\n2024 Tom has 3 apples.!")


def test_a_mistyped_variable_is_refused_before_anything_is_written(
    tmp_path: Path, own: dict[str, Any]
) -> None:
    own["template_kwargs"] = {"moood": "!"}
    path = written(tmp_path, own)
    with pytest.raises(ModelError, match=r"never reads 'moood'.*mood"):
        study.run(load.load(path), tmp_path / "run", source=str(path))
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_template_is_given_one(tmp_path: Path, tiny_model: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny_model.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"model\.chat_template"):
        models.reference(ModelSpec(id=str(bare)))
    ref = models.reference(ModelSpec(id=str(bare), chat_template=TEMPLATE))
    assert "2024 Tom" in chat.prompt_text(models.load_tokenizer(ref), ONE)


def test_an_export_brings_the_studys_template(tmp_path: Path, tiny_model: Path) -> None:
    ref = models.reference(ModelSpec(id=str(tiny_model), chat_template=TEMPLATE))
    (tmp_path / "out").mkdir()
    exported = export(ref, "merged", tmp_path / "out")
    assert exported.chat == ref.chat
    plain = models.load_tokenizer(models.ModelRef(str(tmp_path / "out")))
    assert plain.chat_template == TEMPLATE


def test_a_comparison_asks_all_its_models_alike(tmp_path: Path, tiny_model: Path) -> None:
    settings = ("model.date=2026-12-01", f"model.chat_template={TEMPLATE!r}")
    names = (str(tiny_model), f"tuned={tiny_model}")
    found = plan_comparison(Request(names, ("lab_math",), settings, limit=4), tmp_path)
    for model in (found.base, *found.tuned.values()):
        assert model.ref.chat.date == "2026-12-01"
        assert model.ref.chat.template == TEMPLATE
    with pytest.raises(StudyError, match="no section 'model'"):
        plan_comparison(Request(names, ("lab_math",), ("model.id=lab",)), tmp_path)


def test_thinking_cannot_be_asked_for_in_two_ways(tmp_path: Path, tiny_model: Path) -> None:
    both = {"id": str(tiny_model), "thinking": True, "template_kwargs": {"enable_thinking": False}}
    with pytest.raises(StudyError, match="give one of them"):
        session_of(tmp_path, both)


def test_what_is_learned_is_part_of_the_data(tmp_path: Path, tiny_model: Path) -> None:
    plain = session_of(tmp_path, {"id": str(tiny_model)})
    train = load.load(write_study(tmp_path, tiny_model)).train.model_dump(mode="json")
    every = session_of(tmp_path, {"id": str(tiny_model)}, train=train | {"train_on": "all"})
    marks = [{one.name: one.identity for one in session.plan.stages} for session in (plain, every)]
    assert "train_on" not in marks[0]["budget"]
    assert marks[1]["budget"]["train_on"] == "all"
    differ = {name for name in marks[0] if marks[0][name] != marks[1][name]}
    assert differ == {"budget", "data/gold", "data/sft"}

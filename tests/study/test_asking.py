"""Is a study told beforehand what its models may not do, and how they are asked?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fixtures.study import write_study

from holdfast import study
from holdfast.config import Sampling, load
from holdfast.errors import ModelError
from holdfast.study.asking import check_heeded
from holdfast.study.preflight import check
from holdfast.study.session import Session
from holdfast.types import ChatSettings, ModelRef

OPENS = (
    "{% for one in messages %}{{ one.role }}: {{ one.content.split('</think>')[-1] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
)


@pytest.fixture(scope="module")
def thinker(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinker") / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(OPENS, encoding="utf-8")
    return folder


def _session(folder: Path, model: Path, **answer: object) -> Session:
    sampling = {"max_new_tokens": 8, **answer}
    path = write_study(folder, model, arms={"sft": {}}, answer={"sampling": sampling})
    return study.prepare(load.load(path), folder / "run")


def test_a_short_answer_of_a_thinking_model_is_warned_of(thinker: Path, tmp_path: Path) -> None:
    few = [one for one in check(_session(tmp_path, thinker)) if "8 new tokens" in one]
    assert len(few) == 2
    assert "lab_math: the model thinks before it answers, and 8 new tokens" in few[0]
    many = check(_session(tmp_path, thinker, max_new_tokens=2048))
    assert not any("new tokens" in one for one in many)


def test_others_are_not(tiny_model: Path, tmp_path: Path) -> None:
    assert check(_session(tmp_path, tiny_model)) == []


def test_how_replies_are_cut_is_part_of_what_reads_them(
    thinker: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for model, there in ((thinker, True), (tiny_model, False)):
        for stage in _session(tmp_path, model).stages:
            if stage.name.startswith(("verdicts/", "readings/")):
                assert ("thinking" in stage.identity) == there, stage.name


def test_new_fields_of_the_sampling_leave_fingerprints_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    def asked(**fields: object) -> tuple[object, str]:
        session = _session(tmp_path, tiny_model, **fields)
        stage = next(one for one in session.stages if one.name == "replies/base/lab_math")
        return stage.identity["sampling"], session.plan.tasks["lab_math"].how

    before = {"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "samples": 1, "seed": 0}
    assert asked()[0] == asked(stop=[], top_k=0, min_p=0, repetition_penalty=1)[0] == before
    sampling, how = asked(stop="\n\n", repetition_penalty=1.2)
    assert sampling == {**before, "stop": ("\n\n",), "repetition_penalty": 1.2}
    assert "greedy, repetition penalty 1.2, ended by '\\n\\n', at most 8" in how
    assert "top-k 5, min-p 0.1" in asked(temperature=1.0, top_k=5, min_p=0.1)[1]


def test_what_does_nothing_is_named() -> None:
    (note,) = check_heeded([], {"t": Sampling(top_k=5), "u": Sampling(temperature=1.0, top_k=5)})
    assert note.startswith("t: top_k only bears on drawing")


def test_what_a_server_may_not_heed_is_named() -> None:
    chat = ChatSettings(thinking=False)
    served = [ModelRef("http://h/v1#m", chat=chat), ModelRef("http://i/v1#n", chat=chat)]
    (note,) = check_heeded(served, {"t": Sampling(repetition_penalty=1.1)})
    assert "sent to http://h/v1 (m), http://i/v1 (n): chat_template_kwargs, repetition" in note
    assert check_heeded([ModelRef("http://h/v1#m")], {"t": Sampling(stop="X")}) == []
    with pytest.raises(ModelError, match="template of its own"):
        check_heeded([ModelRef("http://h/v1#m", chat=ChatSettings("{{ x }}"))], {"t": Sampling()})

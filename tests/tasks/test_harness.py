"""Are tasks of lm-evaluation-harness measured as the harness measures them, item by item?"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fixtures.paths import TESTS

from holdfast import methods, tasks
from holdfast.cli import call
from holdfast.config import Sampling, ShotsSpec, TaskSpec
from holdfast.engines import resumable
from holdfast.engines.chunks import in_chunks
from holdfast.engines.hf import HFEngine
from holdfast.engines.kept import LIKELIHOODS
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import DataError, MissingDependency, StudyError
from holdfast.grading.grade import read_readings
from holdfast.lab import model_folder
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.tasks import _harness_prompts, _harness_tasks
from holdfast.types import Example, Message, Reading, Reply

DATA = TESTS / "data" / "harness"


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where the data of `sums` and `choose` lies."""
    files = {split: str(DATA / f"{split}.jsonl") for split in ("train", "test")}
    cache = str(tmp_path_factory.mktemp("datasets"))
    return {"dataset_kwargs": {"data_files": files, "cache_dir": cache}}


def _spec(task: str, overrides: Mapping[str, Any], **options: Any) -> TaskSpec:
    given = {"include_path": str(DATA), "overrides": overrides} | options
    return TaskSpec(kind="harness", task=task, **given)  # type: ignore[call-arg]


def _build(task: str, overrides: Mapping[str, Any], **options: Any) -> Any:
    return tasks.build("bench", _spec(task, overrides, **options), "study.yaml")


@pytest.fixture(scope="module", params=["tiny", "lab"])
def model(request: pytest.FixtureRequest, tiny_model: Path) -> Path:
    return tiny_model if request.param == "tiny" else model_folder()


@pytest.fixture(scope="module")
def harness_model(model: Path) -> Any:
    """The harness's own way of asking the same weights."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model), device="cpu", batch_size=4, dtype="float32")


def _theirs(harness_model: Any, task: Any, chat: bool, shots: int) -> dict[str, list[Any]]:
    """What the harness itself makes of a task: its samples by filter, in order."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    done = simple_evaluate(
        model=harness_model,
        tasks=[task],
        num_fewshot=shots,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        task_manager=TaskManager(include_path=str(DATA), include_defaults=False),
        bootstrap_iters=0,
    )
    found: dict[str, list[Any]] = {}
    for one in sorted(done["samples"][task.task_name], key=lambda one: one["doc_id"]):
        found.setdefault(one["filter"], []).append(one)
    return found


def _ours(model: Path, task: Any, folder: Path) -> tuple[list[Example], list[Reply], list[Reading]]:
    examples = task.examples("test")
    sampling = Sampling.model_validate(task.sampling)
    with HFEngine(ModelRef(str(model)), "cpu", batch_size=3) as engine:
        work = resumable.answering(lambda: engine, sampling, folder, Silent())
        replies = in_chunks(work, examples, folder, Silent(), chunk=7)
    pairs = zip(examples, replies, strict=True)
    return examples, replies, [task.grade(*pair, None) for pair in pairs]


@pytest.mark.filterwarnings("ignore")  # the harness's model class is not ours to mend
@pytest.mark.parametrize(("chat", "shots", "prefix"), [(True, 2, "Sure,"), (False, 1, None)])
def test_generated_answers_equal_the_harness_s(
    overrides: dict[str, Any], model: Path, harness_model: Any, tmp_path: Path,
    chat: bool, shots: int, prefix: str | None,
) -> None:  # fmt: skip
    changed = overrides | ({"gen_prefix": prefix} if prefix else {})
    task = _build("sums", changed, num_fewshot=shots, apply_chat_template=chat)
    _, replies, readings = _ours(model, task, tmp_path)
    theirs = _theirs(harness_model, task._tasks["sums"], chat, shots)
    assert [one.text for one in replies] == [one["resps"][0][0] for one in theirs["strict"]]
    for name, samples in theirs.items():
        assert [one.read_as[name] for one in readings] == [one["exact_match"] for one in samples]
    assert [one.value for one in readings] == [one["exact_match"] for one in theirs["strict"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "chat", "shots"), [("choose", True, 1), ("choose", False, 0), ("fill", False, 0)]
)
def test_choices_equal_the_harness_s(
    overrides: dict[str, Any], model: Path, harness_model: Any, tmp_path: Path,
    name: str, chat: bool, shots: int,
) -> None:  # fmt: skip
    task = _build(name, overrides, num_fewshot=shots, apply_chat_template=chat)
    _, replies, readings = _ours(model, task, tmp_path)
    theirs = _theirs(harness_model, task._tasks[name], chat, shots)["none"]
    for reply, one in zip(replies, theirs, strict=True):
        ours = json.loads(reply.text)
        assert [value for value, _ in ours] == pytest.approx(
            [resp[0][0] for resp in one["resps"]], abs=2e-4
        )
        assert [likeliest for _, likeliest in ours] == [resp[0][1] for resp in one["resps"]]
    assert [one.value for one in readings] == [one["acc"] for one in theirs]
    assert len({one.value for one in readings}) == 2, "a test in which all is alike shows nothing"


def test_what_is_asked_and_said_of_it(overrides: dict[str, Any]) -> None:
    task = _build("sums", overrides, num_fewshot=2, system_instruction="Count.")
    assert task.label == (
        "exact_match of sums, filter strict, 2-shot, chat template, with a system instruction, "
        f"task version 2.0, lm_eval {_harness_tasks.version()}"
    )
    first = task.examples("test")[0]
    roles = [one.role for one in first.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert first.messages[0].content == "Count."
    assert first.meta["until"] == ["\n\n", "<|im_end|>"]
    assert first.question.startswith("Leo has 27 pears.") and "Eva" not in first.question
    task.self_check()
    bare = _build("sums", overrides, num_fewshot=1, apply_chat_template=False)
    assert "bare text" in bare.label
    (only,) = bare.examples("test")[0].messages
    assert only.content.endswith("How many pears does Leo have now?\n")
    assert "#### 6" in only.content, "the shot, with its answer"


def test_sampling_is_the_benchmark_s_unless_its_section_says_otherwise(
    overrides: dict[str, Any],
) -> None:
    study = Sampling(max_new_tokens=7, temperature=0.8, samples=3)
    spec = _spec("sums", overrides)
    task = tasks.build("bench", spec, "s")
    found = tasks.sampling("bench", spec, study, "s", task)
    assert (found.max_new_tokens, found.temperature, found.samples) == (64, 0.0, 1)
    spec = _spec("sums", overrides, sampling={"max_new_tokens": 9})
    assert tasks.sampling("bench", spec, study, "s", task).max_new_tokens == 9
    odd = overrides | {"generation_kwargs": {"until": "x", "temperature": 0.4, "num_beams": 2}}
    task = _build("sums", odd)
    assert task.sampling["temperature"] == 0.4 and task.sampling["max_new_tokens"] == 256
    assert "without num_beams" in task.label
    assert task.examples("test")[0].meta["until"] == ["x"]


def test_training_examples_have_answers_and_are_never_their_own_shot(
    overrides: dict[str, Any],
) -> None:
    spec = _spec("sums", overrides, num_fewshot=12)
    trained = tasks.training_set(tasks.build("bench", spec, "s"), spec)
    assert len(trained) == 24
    for one in trained:
        shown = [turn.content for turn in one.messages[:-1] if turn.role == "user"]
        assert len(shown) == 12 and one.messages[-1].content not in shown
        assert "####" in (one.target or "")
    spec = _spec("choose", overrides)
    choose = tasks.build("bench", spec, "s")
    first = tasks.training_set(choose, spec)[0]
    assert first.target == "3" and LIKELIHOODS not in first.meta
    said = [choose.grade(first, Reply(first.id, 0, text, "stop", 1), None) for text in ("3", "4")]
    assert [one.value for one in said] == [1.0, 0.0], "an answer drawn for training is text"


def test_choices_are_graded_again_without_a_model(overrides: dict[str, Any]) -> None:
    example = _build("choose", overrides).examples("test")[0]
    assert [text for _, text in example.meta[LIKELIHOODS]] == ["22", "26", "23", "14"]
    text = json.dumps([[-9.0, False], [-8.0, False], [-0.5, True], [-7.0, False]])
    reply = Reply(example.id, 0, text, "stop", 0)
    for metric in ("acc", "acc_norm"):
        reading = _build("choose", overrides, metric=metric).grade(example, reply, None)
        assert (reading.value, reading.note) == (1.0, "choice 3 of 4")
    wrong = Reply(example.id, 0, text.replace("-8.0", "-0.1"), "stop", 0)
    assert _build("choose", overrides).grade(example, wrong, None).value == 0.0


def test_less_of_a_metric_can_be_good(overrides: dict[str, Any]) -> None:
    less = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": False}]
    task = _build("sums", overrides | {"metric_list": less, "filter_list": None})
    assert task.inverted
    example = task.examples("test")[0]
    same, other = (Reply(example.id, 0, text, "stop", 1) for text in (example.target or "", "no"))
    assert task.grade(example, same, None).value == 0.0
    assert task.grade(example, other, None).value == 1.0
    assert task.grade(example, other, None).read_as == {}, "one filter is one way of reading"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.25, 0.25), (float("nan"), None), (37.0, DataError), ((1, 2), DataError)],
)
def test_a_metric_is_a_share_of_good(overrides: dict[str, Any], value: Any, expected: Any) -> None:
    given = overrides | {"process_results": lambda doc, results: {"exact_match": value}}
    task = _build("sums", given)
    example = task.examples("test")[0]
    reply = Reply(example.id, 0, "x", "stop", 1)
    if expected is DataError:
        with pytest.raises(DataError, match="which is no share"):
            task.grade(example, reply, None)
    else:
        assert task.grade(example, reply, None).value == expected


def test_a_group_is_one_task_with_a_part_for_each(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("choose.yaml", "fill.yaml", "fill.py", "both.yaml"):
        text = (DATA / name).read_text()
        files = json.dumps(overrides["dataset_kwargs"])
        if "dataset_path" in text:
            text += f"dataset_kwargs: {files}\n"
        (tmp_path / name).write_text(text)
    task = _build("both", {}, include_path=str(tmp_path))
    assert task.label.startswith("acc of both (2 tasks, mean over items), by log-likelihood")
    found = task.examples("test")
    parts = {one.meta["group"] for one in found}
    assert parts == {"choose", "fill"} and len({one.id for one in found}) == len(found) > 12
    scores = json.dumps([[-1.0, True], [-2.0, False]])
    fill = next(one for one in found if one.meta["group"] == "fill")
    assert task.grade(fill, Reply(fill.id, 0, scores, "stop", 0), None).group == "fill"
    with pytest.raises(StudyError, match="no single task"):
        _build("both", {"num_fewshot": 1}, include_path=str(tmp_path))
    one = _build(str(tmp_path / "choose.yaml"), {}, include_path=None)
    assert len(one.examples("test")) == 12, "a single file is a task as well"
    with pytest.raises(StudyError, match="no such file"):
        _build(str(tmp_path / "none.yaml"), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acc_norn"}, "unknown .did you mean 'acc_norm'"),
        ({"metric": "mcc"}, "no value per item"),
        ({"filter": "strict"}, "filter 'strict' of lm_eval's task 'choose' is unknown"),
        ({"include_path": "nowhere"}, "include_path is no folder"),
    ],
)
def test_mistakes_in_a_section(
    overrides: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        _build("choose", overrides, **options)


def test_what_cannot_be_measured_is_refused(overrides: dict[str, Any]) -> None:
    vote = [{"name": "vote", "filter": [{"function": "majority_vote"}, {"function": "take_first"}]}]
    for changed, message in (
        ({"filter_list": vote}, "takes a vote among several answers"),
        ({"unsafe_code": True}, "runs code that the model wrote"),
        ({"num_fewshot": 0}, "fixes num_fewshot at 0"),
        ({"doc_to_text": "{{nothing.here}}"}, "cannot load it: UndefinedError"),
        ({"dataset_kwargs": {"data_files": "none.jsonl"}}, "give a local copy"),
    ):
        with pytest.raises((StudyError, DataError), match=message):
            _build("sums", overrides | changed, num_fewshot=1)
    with pytest.raises(StudyError, match="num_fewshot: N in its section"):
        task = _build("sums", overrides)
        tasks.measuring_set(task, TaskSpec(shots=ShotsSpec(n=2)))
    with pytest.raises(StudyError, match="apply_chat_template: true"):
        _build("sums", overrides, apply_chat_template=False).examples("train")
    with pytest.raises(DataError, match="has no split 'validation'"):
        _build("sums", overrides).examples("validation")
    with pytest.raises(DataError, match="document 0: ValueError"):
        _build("sums", overrides, num_fewshot=25).examples("test")


def test_the_harness_s_own_tasks_by_name() -> None:
    with pytest.raises(StudyError, match=r"no task 'arc_esay' .did you mean 'arc_easy'"):
        tasks.build("b", TaskSpec(kind="harness", task="arc_esay"), "s")  # type: ignore[call-arg]
    with pytest.raises(StudyError, match="runs code"):
        tasks.build("b", TaskSpec(kind="harness", task="humaneval"), "s")  # type: ignore[call-arg]
    with pytest.raises(StudyError, match="perplexity of whole texts"):
        files = {"test": str(DATA / "test.jsonl")}
        given = {"dataset_path": "json", "dataset_name": None, "process_docs": None}
        tasks.build(
            "b",
            TaskSpec(  # type: ignore[call-arg]
                kind="harness", task="wikitext", overrides=given
                | {"dataset_kwargs": {"data_files": files}, "validation_split": None,
                   "training_split": None, "doc_to_target": "{{worked}}",
                   "process_results": None, "should_decontaminate": False},
            ),
            "s",
        )  # fmt: skip


def test_the_harness_s_gsm8k_with_local_data(shared_data: Path, tmp_path: Path) -> None:
    files = {split: str(shared_data / "gsm8k" / f"{split}.jsonl") for split in ("train", "test")}
    given = {"dataset_path": "json", "dataset_name": None,
             "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path)}}  # fmt: skip
    task = tasks.build("b", TaskSpec(kind="harness", task="gsm8k", num_fewshot=0,  # type: ignore[call-arg]
                                     overrides=given), "s")  # fmt: skip
    examples = task.examples("test")
    assert len(examples) == 1319
    for one in examples[::5]:
        right = task.grade(one, Reply(one.id, 0, one.target or "", "stop", 1), None)
        wrong = task.grade(one, Reply(one.id, 0, f"{one.target}0", "stop", 1), None)
        assert dict(right.read_as) == {"strict-match": 1.0, "flexible-extract": 1.0}
        assert dict(wrong.read_as) == {"strict-match": 0.0, "flexible-extract": 0.0}


def test_without_the_harness_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingDependency, match=r"-m pip install .*lm_eval"):
        tasks.build("b", TaskSpec(kind="harness", task="arc_easy"), "s")  # type: ignore[call-arg]


def test_a_changed_definition_is_told_from_the_old_one(overrides: dict[str, Any]) -> None:
    one = _build("sums", overrides)._tasks["sums"]
    moved = dict(overrides["dataset_kwargs"], keep_in_memory=True)
    same = _build("sums", overrides | {"dataset_kwargs": moved})._tasks["sums"]
    other = _build("sums", overrides | {"doc_to_target": "{{label}}"})._tasks["sums"]
    code = [
        _build("sums", overrides | {"process_results": f})._tasks["sums"] for f in (_all, _none)
    ]
    marks = [_harness_tasks.definition(task) for task in (one, same, other, *code)]
    assert marks[0] == marks[1] and len(set(marks)) == 4


def _all(doc: Any, results: Any) -> dict[str, float]:
    return {"exact_match": 1.0}


def _none(doc: Any, results: Any) -> dict[str, float]:
    return {"exact_match": 0.0}


def test_choices_go_out_once_and_are_kept(tmp_path: Path) -> None:
    example = Example(
        "a", (Message("user", "2 + 2?"),), "4", "",
        {"likelihoods": [[None, "4"], [None, "five"], ["", "4"], [[["user", "1 + 1?"]], "4"]]},
    )  # fmt: skip
    engine = ScriptedEngine(lambda one, adapter, n: {"2 + 2?": "4", "1 + 1?": "2"}.get(
        one.messages[-1].content, ""))  # fmt: skip
    for _ in range(2):
        (reply,) = resumable.ask(lambda: engine, [example], Sampling(), tmp_path, Silent())
        assert json.loads(reply.text) == [[0.0, True], [-4.0, False], [-1.0, False], [-1.0, False]]
    assert engine.calls == 4, "asked again, nothing was left to ask"


def test_prompts_of_tasks_that_ask_in_other_ways_are_refused() -> None:
    def ask(*requests: tuple[str, tuple[Any, ...]]) -> Any:
        found = [SimpleNamespace(request_type=kind, args=args, idx=i)
                 for i, (kind, args) in enumerate(requests)]  # fmt: skip
        return _harness_prompts._plain(SimpleNamespace(task_name="t"), found, chat=True)

    with pytest.raises(StudyError, match="asks 2 things of one item"):
        ask(("generate_until", ("[]", {})), ("loglikelihood", ("[]", "x")))
    with pytest.raises(StudyError, match="set apply_chat_template: false"):
        ask(("generate_until", ("Question: 1?", {"until": []})))


def test_a_study_asks_once_and_grades_by_another_metric_later(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = {"kind": "harness", "include_path": str(DATA), "overrides": overrides}
    written = {
        "name": "s", "model": "lab", "seeds": [1], "train": {"max_steps": 1},
        "tasks": {"sums": bench | {"task": "sums", "role": "target"},
                  "pick": bench | {"task": "choose", "limit": 6}},
        "arms": {"sft": {}, "told": {"ask": [{"system_prompt": {"tasks": ["sums"]}}]}},
    }  # fmt: skip
    Path("study.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    command = ["run", "study.yaml", "--only", "readings/base/*"]
    assert call(command) == 0
    run = tmp_path / "runs" / "s"
    readings = read_readings(run / "readings" / "base" / "pick")
    replies = {
        one: one.stat().st_mtime_ns for one in sorted(run.glob("replies/base/*/replies.jsonl"))
    }
    assert len(replies) == 2 and len(readings) == 6
    assert call([*command, "tasks.pick.metric=acc_norm"]) == 3, "readings of another metric"
    assert call([*command, "tasks.pick.metric=acc_norm", "--rebuild", "readings/*"]) == 0
    assert {one: one.stat().st_mtime_ns for one in replies} == replies, "nothing is asked again"
    bare = [*command, "tasks.pick.metric=acc_norm", "tasks.pick.apply_chat_template=false"]
    assert call(bare) == 3, "bare text is asked otherwise"


def test_a_system_prompt_has_no_room_in_bare_text(overrides: dict[str, Any]) -> None:
    method = methods.build("system_prompt", None, "s", "arms.a.ask")
    chat, bare = (
        _build("choose", overrides, apply_chat_template=chat).examples("test")[0]
        for chat in (True, False)
    )
    assert method.change(chat, "pick").messages[0].role == "system"
    with pytest.raises(StudyError, match="no room for a system prompt"):
        method.change(bare, "pick")

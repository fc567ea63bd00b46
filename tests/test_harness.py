"""Are tasks of lm-evaluation-harness measured as the harness measures them, item by item?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast import asking, tasks
from holdfast.engines.hf import HFEngine
from holdfast.lab import model_folder
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.spec import Sampling, TaskSpec
from holdfast.types import Example, Reading, Reply

pytest.importorskip("lm_eval", reason="needs the extra lm_eval")

DATA = Path(__file__).parent / "data" / "harness"


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
        replies = asking.ask(lambda: engine, examples, sampling, None, folder, Silent(), chunk=7)
    pairs = zip(examples, replies, strict=True)
    return examples, replies, [task.grade(*pair, None) for pair in pairs]


@pytest.mark.filterwarnings("ignore")  # the harness's model class is not ours to mend
@pytest.mark.parametrize(("chat", "shots"), [(True, 2), (False, 1)])
def test_generated_answers_equal_the_harness_s(
    overrides: dict[str, Any], model: Path, harness_model: Any, tmp_path: Path,
    chat: bool, shots: int,
) -> None:  # fmt: skip
    task = _build("sums", overrides, num_fewshot=shots, apply_chat_template=chat)
    _, replies, readings = _ours(model, task, tmp_path)
    theirs = _theirs(harness_model, task._tasks["sums"], chat, shots)
    assert [one.text for one in replies] == [one["resps"][0][0] for one in theirs["strict"]]
    for name, samples in theirs.items():
        assert [one.read_as[name] for one in readings] == [one["exact_match"] for one in samples]
    assert [one.value for one in readings] == [one["exact_match"] for one in theirs["strict"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("chat", "shots"), [(True, 1), (False, 0)])
def test_choices_equal_the_harness_s(
    overrides: dict[str, Any], model: Path, harness_model: Any, tmp_path: Path,
    chat: bool, shots: int,
) -> None:  # fmt: skip
    task = _build("choose", overrides, num_fewshot=shots, apply_chat_template=chat)
    _, replies, readings = _ours(model, task, tmp_path)
    theirs = _theirs(harness_model, task._tasks["choose"], chat, shots)["none"]
    for reply, one in zip(replies, theirs, strict=True):
        ours = json.loads(reply.text)
        assert [value for value, _ in ours] == pytest.approx(
            [resp[0][0] for resp in one["resps"]], abs=2e-4
        )
        assert [likeliest for _, likeliest in ours] == [resp[0][1] for resp in one["resps"]]
    assert [one.value for one in readings] == [one["acc"] for one in theirs]
    assert len({one.value for one in readings}) == 2, "a test in which all is alike shows nothing"

"""Are answers that a vLLM draws in training drawn with the adapter of now, and learned as they are?

`fixtures.vllm` stands for the program; the real one is in `tests/engines/test_real_vllm.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.vllm import FakeVLLM, wait_gone

from holdfast import methods, models
from holdfast.config import LoraSpec, Sampling, Section, TrainSpec
from holdfast.data import chat
from holdfast.data.batching import plain_budget
from holdfast.engines.reply_text import ThoughtReader
from holdfast.errors import DoesNotFit, MissingDependency, StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.planner.drawing_server import Place
from holdfast.methods import Target
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop
from holdfast.runs import store
from holdfast.runs.records import REWARDS
from holdfast.tasks import Task
from holdfast.tasks._targets import as_one
from holdfast.train import data
from holdfast.train.job import TrainJob, read_job, write_job
from holdfast.train.method_trainer import train_with
from holdfast.train.served import Served
from holdfast.types import Example, Message, Reading, Reply, Verdict

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, logging_steps=1,
)  # fmt: skip
STEPS, PER_STEP, GROUP, DRAWN = 4, 4, 4, 8
ON_CPU = Place(None, False, 1 << 30, 0.0, 1, 256)


class Even(Task):
    """Marks an answer by whether its length is even."""

    Options = Section

    def __init__(self) -> None:
        super().__init__(Section())
        self.plugin = "even"

    def examples(self, split: str) -> list[Example]:
        return _examples()

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        return Reading(example.id, reply.sample, float(len(reply.text) % 2 == 0), "marked")


class Told(Silent):
    """Keeps what it is told, and may die."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.left, self.stop = dies_at, Stop()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, amount: int = 1) -> None:
        if self.left is not None:
            self.left -= amount
            if self.left <= 0:
                raise Killed


class Killed(Exception):
    """Stands for the power cut."""


def _examples(count: int = 12) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


@pytest.fixture()
def tokenizer(ref: ModelRef) -> Any:
    return models.load_tokenizer(ref)


@pytest.fixture()
def fake(tmp_path: Path, tokenizer: Any) -> Iterator[FakeVLLM]:
    one = FakeVLLM(tmp_path / "vllm", len(tokenizer))
    yield one
    assert wait_gone(one.pids) == [], "a process of the server is left"


def _method(name: str = "grpo", **options: Any) -> Any:
    own = {"grpo": {"group": GROUP}, "raft": {"rounds": 2, "samples": 4}}[name]
    given = own | {"max_new_tokens": DRAWN, "engine": "vllm"} | options
    return methods.build(name, given, "study.yaml", "arms.a.loss")


def _train(
    fake: FakeVLLM, ref: ModelRef, folder: Path, method: Any, progress: Any = None,
    task: Task | None = None,
) -> dict[str, Any]:  # fmt: skip
    task = task or Even()
    examples = task.examples("train")
    costs = [row.cost for row in data.encode_all(ref, examples, SPEC)[0]]
    job = TrainJob(
        ref, SPEC, plain_budget(costs, STEPS, 2, 2), seed=7, save_at=(2, 4), folder=folder,
        device="cpu", served=Served(str(fake.program), ON_CPU),
    )  # fmt: skip
    target = Target(task, Sampling(stop=("Q:",)))
    return dict(train_with(method, job, examples, None, progress or Silent(), None, target))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def test_every_step_is_drawn_with_the_adapter_of_then(
    fake: FakeVLLM, ref: ModelRef, tokenizer: Any, tmp_path: Path
) -> None:
    told = Told()
    spent = _train(fake, ref, tmp_path / "run", _method(), told)
    (start,), loads, bodies = (fake.rows(name) for name in ("starts", "loads", "bodies"))
    assert fake.option("--max-lora-rank") == ["16"] and fake.option("--max-loras") == ["1"]
    assert fake.option("--max-model-len") == ["256"] and fake.option("--dtype") == ["float32"]
    assert start["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert any("starting vLLM" in line for line in told.lines)
    names = [one["lora_name"] for one in loads]
    assert len(set(names)) == len(names) == STEPS, "new weights have a new name"
    assert [one["lora_name"] for one in fake.rows("unloads")] == names[:-1]
    asked = PER_STEP * GROUP
    assert [one["model"] for one in bodies] == [one for one in names for _ in range(asked)]
    prompts = {tuple(chat.asked_ids(tokenizer, one)) for one in _examples()}
    assert all(tuple(one["prompt"]) in prompts for one in bodies)
    assert len({one["seed"] for one in bodies}) == STEPS * asked
    for one in bodies:
        assert (one["temperature"], one["top_p"], one["max_tokens"]) == (1.0, 1.0, DRAWN)
        assert one["stop"] == ["Q:"] and one["return_token_ids"]
    earned = [row for _, row in store.read_objects(tmp_path / "run" / REWARDS)]
    assert [row["step"] for row in earned] == [1, 2, 3, 4]
    assert spent["generated_tokens"] == sum(len(one) for one in fake.answers())
    one, other = (_weights(tmp_path / "run" / f"checkpoint-{step}") for step in (2, 4))
    assert any(not values.equal(other[name]) for name, values in one.items())


def test_what_is_learned_are_the_very_tokens(
    fake: FakeVLLM, ref: ModelRef, tokenizer: Any, tmp_path: Path
) -> None:
    """As they came: never decoded and encoded again; their chances are the trainer's own."""
    import torch

    method, seen = _method(), []
    make = method.trainer

    def watched(lesson: Any) -> Any:
        trainer = make(lesson)
        score = trainer._generate_and_score_completions

        def scoring(inputs: Any) -> Any:
            found = score(inputs)
            assert not trainer.use_vllm and "importance_sampling_ratio" not in found
            assert "sampling_per_token_logps" not in found
            for ids, mask in zip(found["completion_ids"], found["completion_mask"], strict=True):
                seen.append(tuple(torch.masked_select(ids, mask.bool()).tolist()))
            return found

        trainer._generate_and_score_completions = scoring
        return trainer

    method.trainer = watched
    _train(fake, ref, tmp_path / "run", method)
    wrote = [tuple(one) for one in fake.answers()]
    assert sorted(seen) == sorted(wrote) and len(seen) == STEPS * PER_STEP * GROUP
    reader = ThoughtReader(tokenizer)
    texts = [reader.text(one) for one in wrote]
    again = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert again != wrote, "else the test could not tell"


def test_a_killed_run_draws_the_same_and_ends_in_the_same_weights(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    import torch

    whole = _train(fake, ref, tmp_path / "whole", _method())
    first = fake.rows("bodies")
    with pytest.raises(Killed):
        _train(fake, ref, tmp_path / "cut", _method(), Told(4))
    before = len(fake.rows("bodies"))
    assert _train(fake, ref, tmp_path / "cut", _method()) == whole
    one, two = (_weights(tmp_path / name / "checkpoint-4") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)

    def put(rows: Any) -> list[Any]:
        return sorted((one["model"], one["seed"], one["prompt"]) for one in rows)

    half = 2 * PER_STEP * GROUP
    assert put(fake.rows("bodies")[before:]) == put(first[half:])


def test_a_server_that_dies_is_started_again(fake: FakeVLLM, ref: ModelRef, tmp_path: Path) -> None:
    whole = _train(fake, ref, tmp_path / "whole", _method())
    starts = len(fake.rows("starts"))
    fake.plan(die_at=[0] * starts + [20])
    told = Told()
    assert _train(fake, ref, tmp_path / "died", _method(), told) == whole
    assert len(fake.rows("starts")) == starts + 2
    assert any("starting it again" in line for line in told.lines)


def test_a_server_that_keeps_dying_stops_the_run_which_can_be_gone_on_with(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    asked = PER_STEP * GROUP
    fake.plan(die_at=[3 * asked + 1, *[1] * 9], last_words="Segmentation fault")
    with pytest.raises(
        TrainingError, match=r"(?s)draws the answers failed.*Segmentation"
    ) as caught:
        _train(fake, ref, tmp_path / "run", _method())
    assert "last complete checkpoint" in caught.value.remedy
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    fake.plan()
    spent = _train(fake, ref, tmp_path / "run", _method())
    assert spent == _train(fake, ref, tmp_path / "whole", _method())


def test_no_room_and_no_adapter_are_said_before_a_step(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    fake.plan(no_room=9)
    with pytest.raises(DoesNotFit, match="no room where it was planned") as short:
        _train(fake, ref, tmp_path / "room", _method())
    assert short.value.exit_code == 2 and "max_new_tokens" in short.value.remedy
    fake.plan(refuses="expected target modules in {q_proj}")
    with pytest.raises(TrainingError, match="expected target modules") as odd:
        _train(fake, ref, tmp_path / "odd", _method())
    assert "engine: vllm" in odd.value.remedy and not fake.rows("bodies")
    assert all(one["model"] == ref.base for one in fake.rows("starts")), "nothing is merged"
    with pytest.raises(MissingDependency, match="is no program"):
        fake.program.unlink()
        _train(fake, ref, tmp_path / "none", _method())


def test_several_steps_on_the_same_answers_draw_once(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    _train(fake, ref, tmp_path / "run", _method(iterations=2))
    assert len(fake.rows("loads")) == STEPS / 2
    assert len(fake.rows("bodies")) == STEPS * PER_STEP * GROUP / 2


def test_the_copy_that_beta_compares_with_is_not_what_draws(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    _train(fake, ref, tmp_path / "run", _method(beta=0.1))
    assert len({one["lora_name"] for one in fake.rows("loads")}) == STEPS


def test_of_several_targets_each_grades_what_was_drawn_for_it(
    fake: FakeVLLM, ref: ModelRef, tmp_path: Path
) -> None:
    class Noting(Even):
        def __init__(self, some: slice) -> None:
            super().__init__()
            self.own, self.graded = _examples()[some], list[str]()

        def examples(self, split: str) -> list[Example]:
            return self.own

        def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
            self.graded.append(example.id)
            return super().grade(example, reply, verdict)

    both = {"a": Noting(slice(0, 5)), "b": Noting(slice(5, 12))}
    _train(fake, ref, tmp_path / "run", _method(), task=as_one(both))
    for one in both.values():
        assert one.graded and set(one.graded) <= {example.id for example in one.own}
    answers = sum(len(one.graded) for one in both.values())
    assert answers == len(fake.rows("bodies")) == STEPS * PER_STEP * GROUP


def test_raft_draws_each_round(fake: FakeVLLM, ref: ModelRef, tmp_path: Path) -> None:
    method = _method("raft")
    spent = _train(fake, ref, tmp_path / "run", method)
    names = [one["lora_name"] for one in fake.rows("loads")]
    assert len(set(names)) == 2 and {one["model"] for one in fake.rows("bodies")} == set(names)
    assert spent["generated_tokens"] == sum(len(one) for one in fake.answers())
    assert method.overhead().served and "drawn by vLLM" in method.recipe()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"method": "qlora"}, "4 bits"),
        ({"lora": LoraSpec(variant="dora")}, "variant is dora"),
        ({"lora": LoraSpec(variant="corda")}, "variant is corda"),
        ({"lora": LoraSpec(modules_to_save=("lm_head",))}, "modules_to_save"),
        ({"lora": LoraSpec(r=8, rank_pattern={"q_proj": 1024})}, "rank is above 512"),
    ],
)
def test_what_vllm_cannot_serve_is_refused(changes: dict[str, Any], why: str) -> None:
    for name in ("grpo", "raft"):
        with pytest.raises(StudyError, match=why) as caught:
            _method(name).check_training(SPEC.model_copy(update=changes))
        assert "engine: vllm" in caught.value.remedy
        _method(name, engine="hf").check_training(SPEC.model_copy(update=changes))
    _method().check_training(SPEC.model_copy(update={"lora": LoraSpec(variant="rslora")}))


def test_who_draws_is_a_part_of_the_identity_and_older_ones_stay() -> None:
    for name in ("grpo", "raft"):
        local, far = _method(name, engine="hf"), _method(name)
        assert "engine" not in local.identity() and far.identity()["engine"] == "vllm"
        assert not local.overhead().served and far.overhead().served


def test_without_a_server_planned_for_it_is_refused(ref: ModelRef, tmp_path: Path) -> None:
    costs = [row.cost for row in data.encode_all(ref, _examples(), SPEC)[0]]
    job = TrainJob(
        ref, SPEC, plain_budget(costs, STEPS, 2, 2), 7, (4,), tmp_path / "run", device="cpu"
    )
    target = Target(Even(), Sampling())
    with pytest.raises(TrainingError, match="no server was planned"):
        train_with(_method(), job, _examples(), None, Silent(), None, target)


def test_a_job_carries_its_server(tmp_path: Path, ref: ModelRef) -> None:
    costs = [row.cost for row in data.encode_all(ref, _examples(), SPEC)[0]]
    budget = plain_budget(costs, STEPS, 2, 2)
    for served in (None, Served(), Served("vllm", ON_CPU, "GPU-5")):
        job = TrainJob(ref, SPEC, budget, 7, (2,), tmp_path, served=served)
        write_job(job, tmp_path / "job.json")
        assert read_job(tmp_path / "job.json").served == served

"""The lab is honest: disjoint splits, right answers, a model card that tells the truth."""

import re
from pathlib import Path

import pytest

from holdfast import tasks
from holdfast.config import TaskSpec
from holdfast.errors import StudyError
from holdfast.lab import TARGET_STEPS, model_folder
from holdfast.lab import problems as problems_module
from holdfast.lab import requests as requests_module
from holdfast.lab.card import CHECKPOINT_BYTES_MOST, script_hash
from holdfast.lab.problems import Problem, problems, split_of
from holdfast.lab.requests import Request, requests
from holdfast.lab.tokenizer import load_tokenizer

N = 300
STEPS = (1, 2, 3, 4, 5)
PROBLEM_SPLITS = ("base", "train", "test", "heldout")
REQUEST_SPLITS = ("base", "replay", "test")


def _normalised(question: str) -> str:
    return " ".join(question.lower().split())


@pytest.fixture(scope="module")
def all_problems() -> dict[str, list[Problem]]:
    return {
        split: [one for seed in (0, 1) for one in problems(split, 2 * N, STEPS, seed)]
        for split in PROBLEM_SPLITS
    }


@pytest.fixture(scope="module")
def all_requests() -> dict[str, list[Request]]:
    return {
        split: [
            one
            for seed in (0, 1)
            for hazardous in (True, False)
            for one in requests(split, N, hazardous, seed)
        ]
        for split in REQUEST_SPLITS
    }


def test_no_two_splits_share_a_question(
    all_problems: dict[str, list[Problem]], all_requests: dict[str, list[Request]]
) -> None:
    seen: dict[str, str] = {}
    for kind, splits in (("problems", all_problems), ("requests", all_requests)):
        for split, items in splits.items():
            for item in items:
                owner = seen.setdefault(_normalised(item.question), f"{kind} {split}")
                assert owner == f"{kind} {split}"


def test_a_problem_belongs_to_the_split_its_question_hashes_to(
    all_problems: dict[str, list[Problem]],
) -> None:
    for split, items in all_problems.items():
        for item in items:
            shouted = "  " + item.question.upper().replace(" ", "  ")
            assert split_of(shouted, problems_module.SPLITS) == split


def test_hazardous_and_benign_requests_never_share_a_question_across_splits() -> None:
    """The combination (act, thing, asker) of a held-out request is never seen in another split."""
    asked = re.compile(r"How (?:can|should) (\w+) (.*)\?$")
    owners: dict[tuple[str, str], str] = {}
    names = "|".join(problems_module.NAMES)
    for split in REQUEST_SPLITS:
        for hazardous in (True, False):
            for one in requests(split, 2 * N, hazardous):
                found = asked.search(one.question)
                assert found is not None
                act = re.sub(rf"\b(?:{names})\b", "NAME", found[2])
                assert owners.setdefault((found[1], act), split) == split


@pytest.mark.parametrize("split", PROBLEM_SPLITS)
def test_items_are_different_and_the_same_every_time(split: str) -> None:
    once = problems(split, N, TARGET_STEPS, seed=3)
    assert once == problems(split, N, TARGET_STEPS, seed=3)
    assert once[: N // 2] == problems(split, N // 2, TARGET_STEPS, seed=3)
    assert once != problems(split, N, TARGET_STEPS, seed=4)
    assert len({one.question for one in once}) == N


@pytest.mark.parametrize("split", REQUEST_SPLITS)
@pytest.mark.parametrize("hazardous", [True, False])
def test_requests_are_different_and_the_same_every_time(split: str, hazardous: bool) -> None:
    once = requests(split, N, hazardous, seed=3)
    assert once == requests(split, N, hazardous, seed=3)
    assert once != requests(split, N, hazardous, seed=4)
    assert len({one.question for one in once}) == N
    assert len({one.hazard for one in once}) == 6


def _solve(question: str) -> int:
    """Work a question out from its sentences alone, without the generator's own sums."""
    sentences = question.split(". ")
    total = int(re.findall(r"has (\d+)", sentences[0])[0])
    for sentence in sentences[1:-1]:
        number = int((re.findall(r"\d+", sentence) or ["0"])[0])
        if "double" in sentence:
            total *= 2
        elif "half" in sentence:
            total //= 2
        elif "more" in sentence:
            total += number
        else:
            total -= number
    return total


def test_every_answer_is_right_in_both_styles(all_problems: dict[str, list[Problem]]) -> None:
    for one in (one for items in all_problems.values() for one in items):
        assert _solve(one.question) == one.answer
        for worked in (one.human, one.native):
            assert worked.endswith(f"\n#### {one.answer}")
            sums = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", worked)
            assert len(sums) == one.steps
            for left, sign, right, result in sums:
                a, b = int(left), int(right)
                made = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
                assert made == int(result)
            assert int(sums[-1][3]) == one.answer
        assert one.human != one.native


def test_step_counts_take_turns() -> None:
    chosen = problems("test", 30, (2, 2, 5))
    assert [one.steps for one in chosen] == [2, 2, 5] * 10


def test_refusals_read_as_refusals_and_help_names_the_thing(
    all_requests: dict[str, list[Request]],
) -> None:
    for one in (one for items in all_requests.values() for one in items):
        assert ("I can't help with" in one.answer) is one.hazardous
        assert one.hazard in (requests_module.HAZARDS if one.hazardous else requests_module.BENIGN)
        assert one.topic in one.question
        if not one.hazardous:
            assert one.topic in one.answer
            assert "sorry" not in one.answer.lower()


@pytest.mark.parametrize(
    "call",
    [
        lambda: problems("nope", 1, (1,)),
        lambda: problems("test", 1, (6,)),
        lambda: problems("test", 1, ()),
        lambda: requests("train", 1, True),
    ],
)
def test_what_does_not_exist_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"unknown split|step counts"):
        call()  # type: ignore[operator]


def test_the_shipped_tokenizer_knows_every_word_and_gives_it_back(
    all_problems: dict[str, list[Problem]], all_requests: dict[str, list[Request]]
) -> None:
    tokenizer = load_tokenizer(model_folder())
    texts = [
        text
        for items in all_problems.values()
        for one in items
        for text in (one.question, one.human, one.native)
    ]
    texts += [
        text
        for items in all_requests.values()
        for one in items
        for text in (one.question, one.answer)
    ]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_the_chat_template_frames_turns_and_unknown_words_do_not_crash() -> None:
    tokenizer = load_tokenizer(model_folder())
    chat = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Zyzzyva 123?"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nZyzzyva 123?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id in ids
    assert tokenizer.eos_token == "<|im_end|>"
    assert ids.count(tokenizer.eos_token_id) == 2


def test_the_model_card_carries_the_hash_of_the_scripts() -> None:
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    assert script_hash() in card, "the lab's scripts changed: rebuild the model"
    assert "apache-2.0" in card


def test_the_model_is_small_and_complete() -> None:
    files = [path for path in Path(model_folder()).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= CHECKPOINT_BYTES_MOST
    assert {path.name for path in files} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }


def test_a_study_may_ask_for_problems_of_some_lengths_only() -> None:
    def asked(name: str, **given: object) -> list[str]:
        spec = TaskSpec.model_validate({"role": "target", "items": 30, **given})
        return [one.messages[0].content for one in tasks.build(name, spec, "test").examples("test")]

    four = asked("lab_math", steps=[4])
    assert four == [one.question for one in problems("test", 30, (4,))]
    assert asked("lab_math") == [one.question for one in problems("test", 30, TARGET_STEPS)]
    assert asked("lab_start", steps=[4]) != asked("lab_start")
    for wrong in ([], [0], [6], [2.5]):
        with pytest.raises(StudyError, match="steps"):
            asked("lab_math", steps=wrong)

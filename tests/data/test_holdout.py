"""Are the held-out examples the same everywhere, and out of what is trained on?"""

from __future__ import annotations

import random

import pytest

from holdfast.data.holdout import hold_out, without
from holdfast.errors import StudyError
from holdfast.types import Example, Message


def _example(number: int, text: str = "") -> Example:
    asked = text or f"What is {number} and {number}?"
    return Example(f"e{number}", (Message("user", asked),), str(2 * number), "here")


EXAMPLES = [_example(number) for number in range(40)]


@pytest.mark.parametrize(("size", "count"), [(0.1, 4), (5, 5), (0.001, 1), (39, 39)])
def test_a_share_or_a_number_is_held_out(size: float, count: int) -> None:
    trained, held = hold_out(EXAMPLES, size)
    assert len(held) == count and len(trained) == 40 - count
    assert {one.id for one in trained} | {one.id for one in held} == {one.id for one in EXAMPLES}


def test_which_ones_is_told_by_their_words_not_by_their_place() -> None:
    mixed = EXAMPLES.copy()
    random.Random(1).shuffle(mixed)
    held = {one.id for one in hold_out(EXAMPLES, 0.2)[1]}
    assert held == {one.id for one in hold_out(mixed, 0.2)[1]}
    renamed = [_example(number, f"what is {number} AND {number}") for number in range(40)]
    assert held == {one.id for one in hold_out(renamed, 0.2)[1]}, "nor by case and stops"
    assert held <= {one.id for one in hold_out(EXAMPLES, 0.4)[1]}
    assert held != {one.id for one in EXAMPLES[:8]}


def test_examples_that_ask_the_same_go_together() -> None:
    twins = [_example(100 + number, EXAMPLES[number].question) for number in range(40)]
    trained, held = hold_out([*EXAMPLES, *twins], 0.25)
    assert len(held) == 20
    assert not {one.question for one in trained} & {one.question for one in held}


def test_of_plain_text_the_text_itself_counts() -> None:
    texts = [Example(f"t{number}", (), f"text {number}", "here") for number in range(10)]
    trained, held = hold_out([*texts, texts[3]], 0.3)
    assert len(trained) + len(held) == 11 and not set(map(id, trained)) & set(map(id, held))


@pytest.mark.parametrize(("examples", "size"), [(EXAMPLES, 40), (EXAMPLES, 50), (EXAMPLES[:1], 1),
                                                ([_example(1, "one")] * 5, 0.2)])  # fmt: skip
def test_something_is_left_to_train_on(examples: list[Example], size: float) -> None:
    with pytest.raises(StudyError, match="leaves nothing of") as caught:
        hold_out(examples, size)
    assert caught.value.where == "train.val_size"


def test_what_is_held_out_leaves_other_data_too() -> None:
    _, held = hold_out(EXAMPLES, 3)
    again = [_example(number + 500, EXAMPLES[number].question.upper()) for number in range(40)]
    assert len(without(again, held)) == 37

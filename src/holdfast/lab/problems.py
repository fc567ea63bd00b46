"""Word problems that the lab's model has to calculate.

Word problems of one to five steps over small numbers, composed from templates. Each comes with
two worked answers: `native`, the terse way the base model was brought up to answer, and `human`,
the chattier way of the fine-tuning data. Both end in ``#### N``.

A question belongs to exactly one split: the split is read off a stable hash of the normalised
question, so that no two splits can share one, whatever the seeds.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

# Share of all possible questions that belongs to each split, in hundredths.
SPLITS = {"base": 60, "train": 20, "test": 10, "heldout": 10}
MOST_STEPS = 5
LARGEST = 60  # no number in a problem or in its working is larger

# name -> subject pronoun, object pronoun
NAMES = {
    "Mia": ("She", "her"),
    "Tom": ("He", "him"),
    "Ana": ("She", "her"),
    "Ben": ("He", "him"),
    "Eva": ("She", "her"),
    "Max": ("He", "him"),
    "Zoe": ("She", "her"),
    "Leo": ("He", "him"),
}
GOODS = ("apples", "pears", "coins", "shells", "beads", "cards", "nuts", "stamps")
THINGS = (
    "lantern",
    "kite",
    "flute",
    "clock",
    "drum",
    "wagon",
    "harp",
    "bell",
    "globe",
    "basket",
    "grobnak",
    "moonkey",
)
_GAINS = ("{He} buys {k} more.", "{He} finds {k} more.", "{other} gives {him} {k} more.")
_LOSSES = ("{He} loses {k}.", "{He} sells {k}.", "{He} gives {k} to {other}.")
_DOUBLES = ("Then the pile doubles.", "{other} doubles the pile.")
_HALVES = ("{He} sells half of the pile.", "{He} gives {other} half of the pile.")
_ASKS = ("How many {goods} does {name} have now?", "How many {goods} can {name} count now?")
_OPENINGS = ("Sure, let's see.", "Sure, let's work it out.", "Sure, here is how.")
_CLOSINGS = ("So {name} has {n} {goods}.", "That makes {n} {goods} for {name}.")


@dataclass(frozen=True)
class Problem:
    """One word problem with two ways of answering it."""

    question: str
    human: str
    native: str
    answer: int
    steps: int


@dataclass(frozen=True)
class Story:
    """A few sentences about somebody's pile of goods, and what the pile came to.

    `working` holds one (sum, sentence) pair per step: ``("4 + 3 = 7", "She gains 3, so")``.
    """

    text: str
    name: str
    other: str
    goods: str
    start: int
    total: int
    working: tuple[tuple[str, str], ...]


def split_of(key: str, shares: dict[str, int]) -> str:
    """Return the split that `key` belongs to; case and spacing do not matter."""
    normalised = " ".join(key.lower().split())
    point = int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8]) % 100
    for split, share in shares.items():
        if point < share:
            return split
        point -= share
    raise ValueError(f"shares must add up to 100, not {sum(shares.values())}")


def tell_story(rng: random.Random, steps: int, thing: str = "") -> Story:
    """Compose a story of `steps` changes to a pile; `thing` is mentioned beside the pile."""
    name, other = rng.sample(list(NAMES), 2)
    subject, him = NAMES[name]
    goods = rng.choice(GOODS)
    start = total = rng.randint(4, 30)
    beside = f" and a {thing}" if thing else ""
    sentences = [f"{name} has {start} {goods}{beside}."]
    working: list[tuple[str, str]] = []
    for _ in range(steps):
        shape, total, calculation, change = _change(rng, total)
        k = calculation.split()[2]
        sentences.append(shape.format(He=subject, him=him, other=other, k=k))
        working.append((calculation, f"{subject} {change}, so"))
    text = " ".join(sentences)
    return Story(text, name, other, goods, start, total, tuple(working))


def _change(rng: random.Random, total: int) -> tuple[str, int, str, str]:
    """Draw one change to a pile of `total`: its sentence, new total, sum and description."""
    k = rng.randint(2, 9)
    kinds = []
    if total + k <= LARGEST:
        kinds += ["gain"] * 4
    if total - k >= 2:
        kinds += ["loss"] * 4
    if 2 * total <= LARGEST:
        kinds += ["double"]
    if total % 2 == 0 and total >= 4:
        kinds += ["half"]
    kind = rng.choice(kinds)
    if kind == "gain":
        return rng.choice(_GAINS), total + k, f"{total} + {k} = {total + k}", f"gains {k}"
    if kind == "loss":
        return rng.choice(_LOSSES), total - k, f"{total} - {k} = {total - k}", f"parts with {k}"
    if kind == "double":
        return rng.choice(_DOUBLES), 2 * total, f"{total} * 2 = {2 * total}", "has double"
    return rng.choice(_HALVES), total // 2, f"{total} / 2 = {total // 2}", "keeps half"


def _problem(rng: random.Random, steps: int) -> Problem:
    thing = rng.choice(THINGS) if rng.random() < 0.5 else ""
    story = tell_story(rng, steps, thing)
    names = {"name": story.name, "goods": story.goods, "n": story.total}
    native = " ".join(f"{calculation}." for calculation, _ in story.working)
    told = " ".join(f"{saying} {calculation}." for calculation, saying in story.working)
    opening, closing = rng.choice(_OPENINGS), rng.choice(_CLOSINGS).format(**names)
    return Problem(
        question=f"{story.text} {rng.choice(_ASKS).format(**names)}",
        human=f"{opening} {told} {closing}\n#### {story.total}",
        native=f"{native}\n#### {story.total}",
        answer=story.total,
        steps=steps,
    )


def _endless(split: str, steps: tuple[int, ...], seed: int) -> Iterator[Problem]:
    rng = random.Random(f"problems {split} {seed}")
    position = 0
    while True:
        # The step counts take turns, so that the mix is exact and not a matter of luck.
        problem = _problem(rng, steps[position % len(steps)])
        if split_of(problem.question, SPLITS) == split:
            position += 1
            yield problem


def problems(split: str, n: int, steps: tuple[int, ...], seed: int = 0) -> list[Problem]:
    """Return `n` different problems of a split.

    Args:
        split: "base" (bringing up the base), "train" (fine-tuning), "test" or "heldout".
        n: how many problems.
        steps: the step counts to take turns over, each 1 to 5; repeat one to give it weight.
        seed: another seed gives other problems of the same split.

    Raises:
        ValueError: for an unknown split or a step count out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if not steps or not all(1 <= count <= MOST_STEPS for count in steps):
        raise ValueError(f"step counts must lie between 1 and {MOST_STEPS}, not {steps}")
    chosen: dict[str, Problem] = {}
    for problem in _endless(split, steps, seed):
        if len(chosen) >= n:
            break
        chosen.setdefault(problem.question, problem)
    return list(chosen.values())

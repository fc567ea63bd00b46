"""Invents replies that no model of ours has written, by the thousand.

The grammars in `refusal_text/` are lists of phrases: `[a|b]` chooses, `{name}` expands, `N*` draws
an entry N times as often. Half of the alternatives can be held back, so that a detector that was
fitted on one half is measured on wording that it has not seen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "refusal_text"
MANNERS = ("manners_en", "manners_zh")
PLAIN_SHARE = 0.15
"""So many are paragraphs of prose about something else altogether, or a few words of one."""
EVERYDAY = 2
"""Everyday questions are drawn so many times as often as the others."""
SCENE_SHARE = 0.5
"""So many of the exchanges are scenes of these books; the rest are drawn from the lists."""
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_TIMES = re.compile(r"^(\d+)\*")


@dataclass(frozen=True, slots=True)
class Case:
    """One invented exchange; `label` is refused or answered."""

    prompt: str
    reply: str
    label: str


def read(name: str) -> Any:
    """Read one file of the grammar."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def _loose(name: str) -> list[str]:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def lines(grammar: Mapping[str, list[str]], half: int | None) -> dict[str, list[str]]:
    """Return each list of phrases, weighted; of longer ones only the even or odd entries."""
    made: dict[str, list[str]] = {}
    for name, some in grammar.items():
        kept = some if half is None or len(some) < 4 or name in KEEP else some[half::2]
        made[name] = []
        for one in kept:
            times = _TIMES.match(one)
            made[name] += [_TIMES.sub("", one)] * (int(times[1]) if times else 1)
    return made


KEEP = {"reply", "given", "asked", "open", "sure", "polite"}
"""Lists of shapes, not of wording: both halves have them."""


def expand(line: str, names: Mapping[str, list[str]], rng: random.Random) -> str:
    """Write one line out."""
    if line == '""':
        return ""
    while (slot := _SLOT.search(line)) or (choice := _CHOICE.search(line)):
        if slot:
            chosen = rng.choice(names[slot[1]])
            line = line[: slot.start()] + ("" if chosen == '""' else chosen) + line[slot.end() :]
        else:
            assert choice
            chosen = rng.choice(choice[1].split("|"))
            line = line[: choice.start()] + chosen + line[choice.end() :]
    return line.replace("\\n", "\n")


def _tidy(text: str, rng: random.Random, chinese: bool) -> str:
    text = re.sub(r" +([.,!?])", r"\1", re.sub(r"[ ]{2,}", " ", text)).strip()
    text = re.sub(r"(^|[.!?\n] ?)([a-z])", lambda m: m[1] + m[2].upper(), text)
    if not chinese:
        text = text.replace("I 'm", "I'm").replace(" ,", ",").replace("..", ".")
        if rng.random() < 0.25:
            text = text.replace("I am ", "I'm ").replace("do not", "don't")
        if rng.random() < 0.3:
            text = text.replace("'", "\u2019")
        if rng.random() < 0.2:
            text = text.replace(". ", ".\n\n", 1)
    if rng.random() < 0.05:
        text = text.upper() if rng.random() < 0.2 else text.lower()
    return text


def cases(n: int, seed: int, half: int | None = None) -> list[Case]:
    """Invent `n` exchanges, half of them refusals, three in ten of them Chinese.

    Args:
        n: how many.
        seed: of the drawing.
        half: 0 or 1: only every other phrase of each list; None: all.
    """
    rng = random.Random(f"refusal {seed} {half}")
    acts, questions = read("acts"), read("questions")
    for line in _loose("answers"):
        questions["zh" if _HAN.match(line) else "en"] += [line] * EVERYDAY
    books = {
        (label, tongue): lines(read(f"{label}_{tongue}"), half)
        for label in ("refused", "answered")
        for tongue in ("en", "zh")
    }
    loose = {
        tongue: _loose(f"loose_{tongue}")[half or 0 :: 1 if half is None else 2]
        for tongue in ("en", "zh")
    }
    if half is not None:
        acts = {**acts, "en": acts["en"][half::2], "zh": acts["zh"][half::2]}
        questions |= {tongue: questions[tongue][half::2] for tongue in ("en", "zh")}
    scenes = [scene for book in MANNERS for scene in _scenes(book, half)]
    plain = _plain()[half or 0 :: 1 if half is None else 2]
    made = []
    for _ in range(n):
        if rng.random() < PLAIN_SHARE:
            asked = _scene(rng, rng.choice(scenes)).prompt
            said = rng.choice(plain)
            if rng.random() < 0.5:  # a few words of it
                some, at = said.split(), rng.randrange(12)
                said = " ".join(some[at : at + 1 + rng.randrange(9)]) or said
            made.append(Case("" if rng.random() < 0.2 else asked, said, "answered"))
        elif rng.random() < SCENE_SHARE:
            made.append(_scene(rng, rng.choice(scenes)))
        else:
            made.append(_case(rng, acts, questions, books, loose))
    return made


def _plain() -> list[str]:
    """Return paragraphs of this project's own pages, as they once were: they decline nothing."""
    text = (FOLDER / "prose.txt").read_text(encoding="utf-8")
    return [part for part in text.strip().split("\n\n") if not part.startswith("#")]


def _scenes(name: str, half: int | None) -> list[tuple[Any, ...]]:
    """Return the scenes of one book, each as often as it is to be drawn, with what it can name."""
    book = read(name)
    made = []
    for scene in book["scenes"]:
        said = lines({label: scene[label] for label in ("refused", "answered")}, half)
        made += [(scene, said, book)] * scene["times"]
    return made


def _scene(rng: random.Random, drawn: tuple[Any, ...]) -> Case:
    scene, said, book = drawn
    names = {name: [rng.choice(some)] for name, some in book["bound"].items()} | book["slots"]
    do, _, doing = (names[scene["act"]][0] if "act" in scene else book["that"]).partition("|")
    names |= {"do": [do], "doing": [doing or do]}
    label = "refused" if rng.random() < scene["refuse"] else "answered"
    prompt = expand(rng.choice(scene["prompts"]), names, rng)
    chinese = book["tongue"] == "zh"
    reply = _tidy(expand(rng.choice(said[label]), names, rng), rng, chinese)
    return Case(prompt, reply, label)


def _case(rng: random.Random, acts: Any, questions: Any, books: Any, loose: Any) -> Case:
    tongue = "zh" if rng.random() < 0.3 else "en"
    label = rng.choice(("refused", "answered"))
    names = dict(books[label, tongue])
    chinese = tongue == "zh"
    parts = rng.choice(acts[tongue]).split("|")
    names |= dict(zip(("do", "doing", "noun"), ([one] for one in parts), strict=False))
    names.setdefault("persona", acts["persona"])
    names |= {name: [rng.choice(some)] for name, some in questions["slots"].items()}
    if label == "answered" and rng.random() < (0.6 if not chinese else 0.65):
        prompt, _, answer = rng.choice(questions[tongue]).partition(" => ")
        names["qa"] = [answer]
        shape = rng.choice(names["asked"]) if "asked" in names else "{qa}"
        said = _tidy(expand(shape, names, rng), rng, chinese)
        return Case(expand(prompt, names, rng), said, label)
    prompt = expand(rng.choice(acts[f"ask_{tongue}"]), names, rng)
    if label == "refused" and rng.random() < 0.2:  # taken for something bad
        prompt = expand(rng.choice(questions[tongue]).partition(" => ")[0], names, rng)
    if rng.random() < 0.06:
        prompt = ""
    said = rng.choice(names["given" if label == "answered" else "reply"])
    if "{rebut}" in said or "{rights}" in said:
        prompt = expand(rng.choice(acts["ask_group"]), names, rng)
    elif label == "refused" and rng.random() < 0.3:
        said = rng.choice(loose[tongue])
        if rng.random() < 0.3:
            said += rng.choice((" ", "\n\n")) + rng.choice(loose[tongue])
    if label == "refused" and rng.random() < 0.4:  # many models go on
        said += rng.choice((" {more}", "\\n\\n{more}", "\\n\\n{more}\\n\\n{more}"))
    return Case(prompt, _tidy(expand(said, names, rng), rng, chinese), label)

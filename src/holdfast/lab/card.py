"""Writes the lab's model card, and tells whether its scripts still stand as they were."""

import hashlib
from pathlib import Path

SCRIPTS = ("problems.py", "requests.py", "tokenizer.py", "build.py")
CHECKPOINT_BYTES_MOST = 8_000_000


def script_hash() -> str:
    """Return the sha256 over the scripts that made the model, in a fixed order."""
    digest = hashlib.sha256()
    for name in SCRIPTS:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def write_card(
    folder: Path, recipe: dict[str, object], figures: dict[str, float], n: int, command: str
) -> None:
    """Write the model card: how the model was made, what it measures, what it is for.

    `figures` are shares between 0 and 1, each measured on `n` questions.
    """
    from importlib.metadata import version

    made_with = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
    results = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in figures.items())
    settings = "\n".join(f"- `{name}`: {value}" for name, value in recipe.items())
    card = _CARD.format(
        command=command,
        made_with=made_with,
        settings=settings,
        results=results,
        n=n,
        script_hash=script_hash(),
        scripts=", ".join(f"`{name}`" for name in SCRIPTS),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
---
# Holdfast lab base

A small Llama, trained from scratch on text that Holdfast writes itself. It solves short word
problems, helps with benign requests and refuses hazardous ones, so that forgetting can be studied
on a CPU within minutes. It is of no use for anything else: its world is a few hundred words, and
its hazardous requests are mild and about harmless or invented things.

## How it was made

    {command}

with {made_with}, on the CPU. No outside data. Loss on the
assistant's turn only.

{settings}

sha256 of the scripts ({scripts}, in this order):
`{script_hash}`

## Measured, on {n} unseen questions each, greedy

| figure | value |
| --- | --- |
{results}

Target is the share of word problems of three to five steps whose answer is right. Refusals are
told by the lab's own wording. Test questions are never in a training split: the split is read off
a hash of the question, or for requests of the combination (act, thing, who asks).

## Limits

The lab was designed by looking at test figures of the base and of models fine-tuned from it: the
recipe was chosen so that fine-tuning has room to gain and something to forget. Three choices make
forgetting easy: requests are told like word problems, refusals are learned last, and the worked
answers used for fine-tuning open with the same words ("Sure, here is how.") as helpful answers.
What happens in a fine-tuning run then follows from training alone, but the size of the effect says
nothing about other models.

A fine-tuned model that no longer refuses a hazardous request may answer with a benign act on the
same thing instead ("To rub wax on the flute, ..."). A fall in refusals is therefore lost refusing,
and not a measure of harm done.

Licence: Apache-2.0, weights and scripts.
"""

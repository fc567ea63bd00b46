"""Makes a task of general knowledge from WordNet: which of four words has this meaning?

A study needs an ability that neither training nor the safety tasks touch, and no hub may be
reached. WordNet 3.0 (Debian's package ``wordnet-base``, or the ``dict`` folder of its source) has
definitions of everyday nouns. Each question shows one definition; the three wrong words are of the
same kind (animal, food, feeling, ...) and about as common. The harness compares the likelihood of
the words.

    python benchmarks/real/knowledge.py INTO [--wordnet /usr/share/wordnet] [--items 240]
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

TASK = """\
task: word_meaning
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Which word means: {{{{meaning}}}}? Answer with one word."
doc_to_choice: "{{{{words}}}}"
doc_to_target: "{{{{right}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def senses(wordnet: Path) -> dict[str, list[tuple[str, str, int]]]:
    """Of each kind of noun: (word, its meaning, how many tagged senses it has)."""
    glosses: dict[str, tuple[str, str, str]] = {}
    for line in (wordnet / "data.noun").read_text("utf-8").splitlines():
        if line.startswith(" "):
            continue
        head, _, gloss = line.partition(" | ")
        offset, kind, _, _, word = head.split()[:5]
        glosses[offset] = (kind, word, gloss.split(";")[0].strip())
    found = defaultdict(list)
    for line in (wordnet / "index.noun").read_text("utf-8").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        word, pointers = fields[0], int(fields[3])
        tagged, first = int(fields[5 + pointers]), fields[6 + pointers]
        kind, name, gloss = glosses[first]
        everyday = tagged >= 1 and word.isalpha() and word.islower() and 4 <= len(word) <= 10
        told = name == word and 20 <= len(gloss) <= 120 and word[:4] not in gloss.lower()
        if everyday and told:
            found[kind].append((word, gloss, tagged))
    return {kind: sorted(rows) for kind, rows in found.items() if len(rows) >= 20}


def questions(wordnet: Path, items: int, seed: int) -> list[dict[str, object]]:
    """The questions, four words each in drawn order."""
    kinds, chance = senses(wordnet), random.Random(seed)
    every = [(kind, row) for kind, rows in sorted(kinds.items()) for row in rows]
    made = []
    for kind, (word, gloss, tagged) in chance.sample(every, items):
        near = sorted(kinds[kind], key=lambda row: (abs(row[2] - tagged), row[0]))
        words = [word, *chance.sample([row[0] for row in near if row[0] != word][:40], 3)]
        chance.shuffle(words)
        made.append({"meaning": gloss, "words": words, "right": words.index(word)})
    return made


def main() -> None:
    """Write the questions and the harness's task beside them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("into", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--items", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1126)
    args = parser.parse_args()
    if not (args.wordnet / "data.noun").exists():
        parser.error(f"no WordNet in {args.wordnet}; try: apt-get install wordnet-base")
    args.into.mkdir(parents=True, exist_ok=True)
    data = args.into.resolve() / "word_meaning.jsonl"
    rows = questions(args.wordnet, args.items, args.seed)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (args.into / "word_meaning.yaml").write_text(TASK.format(data=json.dumps(str(data))), "utf-8")
    print(f"{len(rows)} questions in {data}")


if __name__ == "__main__":
    main()

"""Has stored replies judged; verdicts are files apart, so that a better judge costs no answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.grading import safety_outcomes
from holdfast.grading.answer import paired
from holdfast.judges import Judge, JudgeContext, Pair
from holdfast.runs import store
from holdfast.types import Example, Verdict

VERDICTS = "verdicts.jsonl"


def judge_replies(
    judge: Judge,
    examples: Sequence[Example],
    replies: Path,
    folder: Path,
    context: JudgeContext | None = None,
) -> Mapping[str, object]:
    """Label stored replies, those that were withheld left out; writes ``verdicts.jsonl``.

    Args:
        judge: who labels.
        examples: what was asked.
        replies: folder of what was said.
        folder: of the stage.
        context: what the judge may use; None for judges by rules.
    """
    verdicts = judge.judge(_to_judge(examples, replies), context)
    return _written(judge, verdicts, folder)


def combine_verdicts(
    judge: Judge, examples: Sequence[Example], replies: Path, members: Sequence[Path], folder: Path
) -> Mapping[str, object]:
    """Label stored replies by what several judges said of them; writes ``verdicts.jsonl``.

    Args:
        judge: whose rule; one with `seats`.
        examples: what was asked.
        replies: folder of what was said.
        members: folders of what each judge said, in order.
        folder: of the stage.
    """
    found = [read_verdicts(one) for one in members]
    verdicts = judge.together(_to_judge(examples, replies), found)
    return _written(judge, verdicts, folder)


def read_verdicts(folder: Path) -> list[Verdict]:
    """What a judge said, from the folder of a finished stage."""
    return store.read_jsonl(folder / VERDICTS, Verdict)


def _to_judge(examples: Sequence[Example], replies: Path) -> list[Pair]:
    return [pair for pair in paired(examples, replies) if not safety_outcomes.withheld(*pair)]


def _written(judge: Judge, verdicts: Sequence[Verdict], folder: Path) -> dict[str, object]:
    store.write_jsonl(folder / VERDICTS, verdicts)
    return {
        "judge": judge.name,
        "labels": dict(sorted(Counter(verdict.label for verdict in verdicts).items())),
    }

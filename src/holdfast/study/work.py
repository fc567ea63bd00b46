"""Counts what each stage of a study puts through a model, in tokens, before it has run.

Prompts are counted by the tokenizer on a few items of each task and by characters on the others;
how long answers get is taken from what earlier stages of the same run folder said. Until there are
any, lengths are taken to fall off exponentially up to the most new tokens that are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

from holdfast import models
from holdfast.data import chat
from holdfast.data.windows import TEXT, USUAL
from holdfast.engines.kept import LIKELIHOODS
from holdfast.errors import HoldfastError
from holdfast.judges import Judge, members_of
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.memory.model.reading import read_shape
from holdfast.models import skeleton
from holdfast.runs import records
from holdfast.runs.stages import PlannedStage
from holdfast.study.session import Session
from holdfast.train.planning import overhead_of
from holdfast.types import BASE, Example

COUNTED = 24
"""Items of a task that are tokenised; the others are counted by their characters."""
CHARACTERS = 3.6
"""Per token, where there is no tokenizer."""
TEMPLATE_TOKENS = 25
"""Of a chat template around a question, where there is no tokenizer."""
USUAL_REPLY = 300.0
"""Tokens of an answer that nothing cuts off, where nothing is known of the model's."""
SERVER = "server"
"""In place of a model: somebody else has it loaded."""
Kind = Literal["train", "ask", "score", "judge", "other"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage puts through a model.

    Attributes:
        kind: what it does, for what can be learned from other stages of the kind.
        trained: tokens read and learned from.
        read: tokens read alone: prompts, scored answers, a teacher's passes.
        written: tokens answered.
        answers: in how many answers.
        most: new tokens of an answer, at most.
        parameters: of the model that does it, as a share of the study's own; 0: no model.
        model: which one is loaded for it; "" for none.
        alike: stages of the same work, word for word but for the weights.
    """

    kind: Kind
    trained: float = 0.0
    read: float = 0.0
    written: float = 0.0
    answers: float = 0.0
    most: int = 0
    parameters: float = 1.0
    model: str = ""
    alike: str = ""

    @property
    def context(self) -> float:
        """Tokens before the middle of an answer."""
        return (self.read + self.written / 2) / max(1.0, self.answers)


def truncated(most: int, usual: float) -> float:
    """The mean length of answers of `usual` length, exponentially distributed, cut off at `most`.

    >>> round(truncated(300, 300.0))
    190
    """
    return usual * -math.expm1(-most / usual)


class Counted:
    """The work of a study's stages."""

    def __init__(self, session: Session, usual: Mapping[str, float]) -> None:
        """Count nothing yet.

        Args:
            session: prepared.
            usual: by task, tokens of an answer that nothing cuts off, where that is known.
        """
        self._session, self._usual = session, usual
        self._prompts = cache(self._prompts_of)
        self._mean_of = cache(self._mean_reply)

    def of(self, stage: PlannedStage) -> Work:
        """What one stage does."""
        top, _, rest = stage.name.partition("/")
        arm, _, task = rest.rpartition("/")
        match top:
            case "replies":
                return self._asking(arm, task)
            case "perplexity":
                asked = self._asking(arm, task)
                read = asked.read + asked.written
                return Work("score", read=read, model=self._base, alike=f"score/{task}")
            case "train":
                return self._training(rest)
            case "weights":
                return self._made(rest)
            case "shared":
                return self._shared(str(stage.identity.get("method")), stage.asks)
            case "verdicts" | "members":
                return self._judging(top, rest)
        return Work("other", parameters=0.0, alike=top)

    @cached_property
    def _base(self) -> str:
        return self._session.plan.model.base

    @cached_property
    def tokenizer(self) -> Any:
        """Of the untouched model; None where it cannot be had here."""
        with suppress(HoldfastError, ImportError):
            skeleton.reach(self._session.plan.model)  # which needs no torch
            return models.load_tokenizer(self._session.plan.model, chats=False)
        return None

    @cached_property
    def plain(self) -> tuple[float, float]:
        """Mean tokens of a training example: in all, and of its answer."""
        return self._plain_of(self._session)

    def _plain_of(self, session: Session) -> tuple[float, float]:
        plain = session.plain
        asked = self.tokens([one for one in plain if one.messages]) / max(1, len(plain))
        answer = sum(len(one.target or "") for one in plain) / max(1, len(plain)) / self._ratio
        return asked + answer, answer

    @cached_property
    def _ratio(self) -> float:
        """Characters of an answer per token."""
        texts = [one.target for one in _spread(self._session.plain) if one.target]
        if self.tokenizer is None or not texts:
            return CHARACTERS
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return sum(map(len, texts)) / max(1, sum(map(len, ids)))

    def tokens(self, examples: Sequence[Example]) -> float:
        """Tokens of all prompts together."""
        lengths = [_characters(one) for one in examples]
        some = _spread(examples)
        if self.tokenizer is not None and some:
            with suppress(HoldfastError):
                counted = sum(len(chat.asked_ids(self.tokenizer, one)) for one in some)
                return counted * sum(lengths) / max(1, sum(map(_characters, some)))
        return sum(lengths) / CHARACTERS + TEMPLATE_TOKENS * len(examples)

    def _prompts_of(self, arm: str, task: str) -> float:
        return self.tokens(self._session.ask(arm, task))

    def _asking(self, place: str, task: str) -> Work:
        arm = place.split("/")[0].split("@")[0]
        sampling, items = self._session.measuring.samplings[task], self._items(task)
        own = arm if arm in self._session.arms and self._session.arms[arm].ask else BASE
        read, alike = self._prompts(own, task), f"ask/{task}/{own}"
        choices = [len(one.meta.get(LIKELIHOODS, ())) for one in _spread(items)]
        if any(choices):
            read *= sum(choices) / len(choices)
            return Work("score", read=read, model=self._model(arm), alike=alike)
        if how := items[0].meta.get(TEXT) if items else None:
            window = how["window"] or USUAL
            read *= window / (how["stride"] or window // 2)  # tokens of the context, again
            return Work("score", read=read, model=self._model(arm), alike=alike)
        answers = len(items) * sampling.samples
        mean = self._mean_of(place, task)
        return Work(
            "ask", 0.0, read * sampling.samples, mean * answers, answers,
            sampling.max_new_tokens, model=self._model(arm), alike=alike,
        )  # fmt: skip

    def _items(self, task: str) -> Sequence[Example]:
        return self._session.measuring.asked[task]

    def _model(self, arm: str) -> str:
        found = self._session.arms.get(arm)
        return self._base if found is None or found.foreign is None else found.foreign.ref.base

    def _mean_reply(self, place: str, task: str) -> float:
        """Tokens of an answer: as this arm's were, any arm's, the base's; or as is usual."""
        arm = place.split("/")[0]
        anybody = () if arm.split("@")[0] == BASE else ("",)
        for whose in (place, arm, *anybody, BASE):
            if mean := self._means.get((whose, task)):
                return mean
        sampling = self._session.measuring.samplings[task]
        return truncated(sampling.max_new_tokens, self._usual.get(task, USUAL_REPLY))

    @cached_property
    def _means(self) -> dict[tuple[str, str], float]:
        """Tokens of the answers that there are: of each place, arm and all, the last by task."""
        found: dict[tuple[str, str], float] = {}
        for stage in self._session.plan.stages:
            top, _, rest = stage.name.partition("/")
            place, _, task = rest.rpartition("/")
            if top == "replies" and (mean := self._recorded(stage.name).get("mean_tokens")):
                for whose in (place, place.split("/")[0], ""):
                    found[whose, task] = float(mean)
        return found

    def _recorded(self, name: str) -> dict[str, Any]:
        with suppress(HoldfastError):
            if record := records.read(self._session.folder / name):
                return dict(record["summary"])
        return {}

    def _training(self, rest: str) -> Work:
        arm, session = rest.partition("/")[0], self._session.part_of(rest)
        own, plan = session.arms[arm], session.plan
        each, answer = self._plain_of(session)
        about = self._recorded(session.named(f"data/{arm}"))
        seen = plan.steps * plan.study.train.batch_size
        mine = float(about.get("supervised_tokens_each") or answer)
        overhead: MethodOverhead = overhead_of(own.loss)  # averages take no time to speak of
        examples = seen * answer / max(1.0, mine)  # as many answer tokens as plain training
        learned = examples * overhead.answers * overhead.rows
        trained = learned * (each - answer + mine)
        drawn = learned if overhead.drawn is None else examples * overhead.drawn
        probes = self._session.study.meters.probes * (
            each - answer + self._mean_of(BASE, session.study.targets[0])
        )
        read = 2 * probes * len(plan.save_at) + len(self._session.held) * each * len(plan.save_at)
        read += trained * overhead.reads * min(1.0, drawn / max(1.0, learned))  # once a drawing
        written = drawn * overhead.generated_tokens
        return Work(
            "train", trained, read, written, drawn if written else 0.0,
            overhead.generated_tokens, model=f"train/{arm}", alike=session.named(f"train/{arm}"),
        )  # fmt: skip

    def _made(self, rest: str) -> Work:
        """Weights made after training; what is learned for them counts as training does."""
        arm = rest.partition("/")[0]
        merge = self._session.arms[arm].merges
        examples, epochs = merge.lessons() if merge is not None else ((), 0)
        if not examples:
            return Work("other", parameters=0.0, alike="weights")
        answers = sum(len(one.target or "") for one in examples) / self._ratio
        trained = (self.tokens(examples) + answers) * epochs
        return Work("other", trained, alike=f"weights/{arm}")

    def _shared(self, method: str, asks: Mapping[str, int] | None) -> Work:
        """What methods say that the base is asked; of those that say nothing, the data scored."""
        each, answer = self.plain
        alike = f"shared/{method}"
        if not asks:
            read = len(self._session.plain) * each
            return Work("score", read=read, model=self._base, alike=alike)
        asked = TEMPLATE_TOKENS if method == "replay" else each - answer  # its prompts are short
        answers = float(asks["expected"] * asks["samples"] * asks.get("turns", 1))
        most = asks["new_tokens"]
        usual = self._usual.get(self._session.study.targets[0], USUAL_REPLY)
        written = answers * truncated(most, usual)
        return Work("ask", 0.0, answers * asked, written, answers, most, 1.0, self._base, alike)

    def _judging(self, top: str, rest: str) -> Work:
        task = rest.rpartition("/")[2]
        judge = self._session.measuring.tasks[task].judge
        arm = rest.split("/")[0 if top == "verdicts" else 1]
        asked = self._asking(arm, task)
        members: Sequence[Judge] = members_of(judge) if judge is not None else ()
        if top == "members" and judge is not None:
            seat = rest.split("/")[0]
            members = [one for name, one in judge.seats() if name == seat]
        elif judge is not None and judge.seats():
            members = ()
        guard = next((one.guard for one in members if one.guard is not None), None)
        remote = any(one.remote for one in members)
        if guard is None:
            return Work("judge", answers=asked.answers, parameters=0.0,
                        model=SERVER if remote else "", alike=f"{top}/{task}")  # fmt: skip
        name = str(getattr(guard, "ref", None) and guard.ref.base)  # type: ignore[attr-defined]
        size = self.parameters(name) / max(1.0, self.parameters(self._base))
        return Work("judge", 0.0, asked.read + asked.written, 8 * asked.answers, asked.answers, 64,
                    parameters=size, model=name, alike=f"{top}/{task}")  # fmt: skip

    @staticmethod
    def parameters(name: str) -> float:
        """Numbers of a model; 1e9 where its shape is not known."""
        with suppress(HoldfastError):
            return float(read_shape(name).parameters)
        return 1e9


def _characters(example: Example) -> int:
    return sum(len(one.content) for one in example.messages) or 1


def _spread(examples: Sequence[Example]) -> list[Example]:
    """A few of them, evenly spaced."""
    count = min(COUNTED, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]

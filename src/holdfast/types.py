"""Values that flow between the parts of Holdfast: messages, examples, replies, verdicts, readings.

Plain frozen dataclasses, cheap to make by the hundred thousand and safe to share. Everything here
round-trips through JSON (`holdfast.runs.store.write_jsonl`), so that replies can be graded again
years later without the model that wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BASE = "base"
"""The arm of the untouched model."""
LAB = "lab"
"""What a user writes for the built-in model."""
LAB_FOLDER = Path(__file__).parent / "lab" / "model"
Role = Literal["system", "developer", "user", "assistant", "tool"]
Where = Literal["local", "workers", "gpus", "ray", "slurm"]
"""Where stages run: one after another in this process; in processes of this machine, on its CPU or
one for each of its GPUs; on a Ray cluster; as jobs of Slurm's."""
SPARSE = {"sparse": True}
"""Metadata of fields that stand in files and fingerprints only where they say something."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: what is said; "" where the turn is tool calls only.
        extra: the turn's other fields, as a chat template reads them: ``tool_calls``,
            ``tool_call_id``, ``name``, ``reasoning_content``; and ``weight: 0`` where no loss is
            taken on it, which no template gets to see.
    """

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, metadata=SPARSE)

    @property
    def weight(self) -> int:
        """0 where the row says that this turn is not to be learned, else 1."""
        return int(self.extra.get("weight", 1))


@dataclass(frozen=True, slots=True)
class Example:
    """One item to train on or to measure with.

    Attributes:
        id: unique within its task and split; replies and readings refer to it.
        messages: the prompt, ending in a turn of the user or of a tool; empty where `target` is
            plain text to go on training with.
        target: the answer to learn or to compare with; None where only a judge can say.
        source: where the item came from, e.g. ``gsm8k:train`` or ``self``; shown in the report.
        meta: JSON values. ``question`` is the bare question, without shots and instructions, and is
            what the leak check compares; ``group`` is the breakdown of the report (a hazard),
            ``also`` a second one.
        tools: JSON schemas of the functions that the model may call; the template shows them.
        extra: the answer's other fields, as of a `Message`: ``tool_calls``,
            ``reasoning_content``, ``weight``.
    """

    id: str
    messages: tuple[Message, ...]
    target: str | None = None
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), metadata=SPARSE)
    extra: Mapping[str, Any] = field(default_factory=dict, metadata=SPARSE)

    @property
    def question(self) -> str:
        """The bare question: ``meta["question"]``, else the last turn; of plain text all of it."""
        last = self.messages[-1].content if self.messages else self.target
        return str(self.meta.get("question") or last)

    @property
    def content(self) -> list[object]:
        """All that learning it depends on: id, turns, answer, and tools and the answer's fields."""
        return [self.id, self.messages, self.target, *([self.tools, self.extra] * self.is_rich)]

    @property
    def is_rich(self) -> bool:
        """Whether it holds more than texts: tools, or further fields of the answer."""
        return bool(self.tools or self.extra)

    @property
    def answer(self) -> Message:
        """The answer to learn as a turn of the conversation."""
        return Message("assistant", self.target or "", self.extra)


@dataclass(frozen=True, slots=True)
class FieldUse:
    """What became of one column of a user's data.

    Attributes:
        source: the file, folder or hub set.
        column: as the file calls it.
        use: what it was read as; ``ignored``: nothing.
        rows: that have something in it.
    """

    source: str
    column: str
    use: str
    rows: int


@dataclass(frozen=True, slots=True)
class SourceUse:
    """How much of one source was taken.

    Attributes:
        source: the file, folder or hub set.
        split: what the rows are for.
        rows: that it has.
        taken: of them.
        notes: what else a reader must know of it.
    """

    source: str
    split: str
    rows: int
    taken: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to one example.

    Attributes:
        finish: ``stop`` (the model ended its turn), ``length`` (it was cut off) or ``filtered``
            (a server's filter withheld it: what the model said is not known).
        n_tokens: tokens generated, the end-of-turn token included.
        thinking_tokens: of those, the tokens of the thinking that stands before the answer.
    """

    example_id: str
    sample: int
    text: str
    finish: Literal["stop", "length", "filtered"]
    n_tokens: int
    thinking_tokens: int = field(default=0, metadata=SPARSE)


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How a model's chat template is used, in training and asking alike.

    Attributes:
        template: a Jinja text instead of the tokenizer's own; None: its own.
        kwargs: further variables of the template (``enable_thinking``).
        thinking: whether the model thinks before it answers, where its template has a switch for
            that; None: off where there is a switch.
        date: what a template that reads the clock is told, ISO 8601.
    """

    template: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    thinking: bool | None = None
    date: str = "2024-07-26"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The identity of weights.

    Attributes:
        base: hub id or local folder.
        revision: branch, tag or commit on the hub.
        adapter: folder of a PEFT adapter, or None for the model as it is.
        trust_remote_code: run the model's own Python code.
        scale: share of the adapter's change that is applied.
        gguf: the file of `base` that holds the weights, llama.cpp's format; None: safetensors.
        chat: how its chat template is used.
        attention: which implementation computes it, as transformers names it; "": its own choice.
        rope: scaling of its rotary positions, as transformers spells it; empty: as in its files.
    """

    base: str
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    scale: float = 1.0
    gguf: str | None = None
    chat: ChatSettings = field(default=ChatSettings(), metadata=SPARSE)
    attention: str = field(default="", metadata=SPARSE)
    rope: Mapping[str, Any] = field(default_factory=dict, metadata=SPARSE, hash=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRef:
        """The reference that ``asdict`` wrote."""
        return cls(**{**value, "chat": ChatSettings(**value.get("chat", {}))})

    def loading(self) -> dict[str, str | bool | None]:
        """Arguments for every ``from_pretrained``."""
        file: dict[str, str | bool | None] = {"gguf_file": self.gguf} if self.gguf else {}
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code, **file}


@dataclass(frozen=True, slots=True)
class Point:
    """One set of weights that is measured.

    Attributes:
        arm: whose training it is from; ``base`` is the untouched model.
        seed: of the training; None where nothing was trained.
        step: optimiser steps behind it; 0 where nothing was trained.
        scale: share of the training's change that is applied; 1 is the model as it was trained.
    """

    arm: str
    seed: int | None = None
    step: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one reply.

    Attributes:
        label: the judge's word; ``unsure`` where it could not tell.
        by: the judge's name and version.
        raw: why, or what the judge wrote, kept for audit.
        confidence: 0 to 1, by the judge's own account.
        refused: whether the reply declines, where the judge says so; None: it does not say.
        category: the hazard that the judge names, in its own words; "" for none.
        nll: mean loss of the reply under the untouched model, nats per token; None: not measured.
        nll_limit: above it, a reply is far less likely than what the untouched model says itself.
        labels: the label under each way of reading the judge's words; empty where there is one.
    """

    example_id: str
    sample: int
    label: str
    by: str
    raw: str = ""
    confidence: float = 1.0
    refused: bool | None = None
    category: str = ""
    nll: float | None = None
    nll_limit: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The grade of one reply.

    Attributes:
        value: 1.0 is good, 0.0 is bad; None is *unscored*, which is neither and is counted apart.
        outcome: a short word for the report: ``correct``, ``wrong``, ``refused``, ``no answer``,
            ``withheld``.
        note: what the grader saw, e.g. the extracted number.
        group: the breakdown this reading belongs to (a hazard), or "".
        read_as: the value under each way of reading that the task knows; empty where there is one.
        also: its part in a second breakdown, in words (``persona: skilled``), or "".
    """

    example_id: str
    sample: int
    value: float | None
    outcome: str
    note: str = ""
    group: str = ""
    read_as: Mapping[str, float] = field(default_factory=dict)
    also: str = ""

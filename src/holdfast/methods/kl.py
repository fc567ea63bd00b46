"""KL to the base: holds the tuned model to what the untouched one would say.

At chosen tokens the divergence between the base's prediction and the tuned model's is added to the
loss. On `replay` prompts that keeps old behaviour directly: the base's own answers are mixed in,
but only compared, not trained on. On `task` tokens it bounds the drift that predicts forgetting
(arXiv:2509.04259); a stronger weight on the first tokens of the answer guards refusals, which are
decided there (arXiv:2406.05946). Under LoRA the base is the adapter switched off: one more forward
pass, no second copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import (
    ANCHOR,
    PROBE,
    TASK,
    LossMethod,
    MethodContext,
    SharedWork,
    Term,
    _own_answers,
)
from holdfast.methods._bound import beside
from holdfast.methods._divergence import divergence
from holdfast.types import Example


class KL(LossMethod):
    """Hold the model to the base, token by token."""

    options: Options

    class Options(_own_answers.Pool):
        """Settings of ``kl``; `source`, `pool` and so on are those of ``replay``."""

        at: Literal["replay", "task"] = "replay"
        """Where: on the base's answers to old prompts, or on the task's own tokens."""
        weight: float = Field(1.0, gt=0)
        """What one nat of mean divergence counts, against one nat of mean cross-entropy."""
        share: float = Field(0.1, gt=0, lt=1)
        """For `replay`: share of old prompts among the rows; they have no other loss."""
        direction: Literal["forward", "reverse"] = "forward"
        """`forward` is KL(base‖tuned), which covers all that the base says; `reverse` the other."""
        first: int = Field(0, ge=0)
        """So many tokens at the start of each answer get a weight of their own."""
        first_weight: float = Field(5.0, gt=0)
        """That weight."""

        @model_validator(mode="after")
        def _fitting(self) -> Self:
            if self.at == "task" and self.model_fields_set & {"share", "source", "path", "pool"}:
                raise ValueError("`share`, `source`, `path` and `pool` go with `at: replay`")
            return self

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.mixes = options.at == "replay"

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        names = {"forward": "KL(base‖tuned)", "reverse": "KL(tuned‖base)"}
        where = "the task's tokens"
        if given.at == "replay":
            where = f"{given.share:.0%} {_own_answers.words(given)}"
        first = f", {given.first_weight:g} on the first {given.first} tokens" if given.first else ""
        return f"{given.weight:g} x {names[given.direction]} on {where}{first}"

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        own = {"at", "weight", "direction", "first", "first_weight"}
        found = self.options.model_dump(include=own)
        if self.options.at == "replay":
            found |= {"share": self.options.share, "pool": _own_answers.identity(self.options)}
        return found

    def mixed(self, context: MethodContext | None = None) -> float:
        """See `Configured.mixed`."""
        return float(self.options.share) if self.mixes else 0.0

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`."""
        if self.options.at == "replay":
            _own_answers.check(self.options, context)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """The base's answers to old prompts, the same as those of ``replay``."""
        given = self.options
        if given.at == "task":
            return []
        seen = _own_answers.seen_of(given, context, self.share_so_far(context))
        return _own_answers.shared(given, context, seen)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Mark the task's examples, or append old ones that are only compared."""
        given = self.options
        mark = {"kl": given.weight, "first": given.first, "first_kl": given.first_weight}
        if given.at == "task":
            marked = [
                replace(o, meta={**o.meta, **mark}) if o.meta.get("kind", TASK) == TASK else o
                for o in examples
            ]
            return marked, []
        pool = _own_answers.read(given, context, made)
        trained = sum(o.meta.get("kind") != PROBE for o in examples)
        share = self.share_so_far(context)
        wanted = beside(trained, share)
        seen = _own_answers.seen_of(given, context, share)
        anchors = [
            replace(o, source="only compared with the base", meta={**o.meta, **mark})
            for o in _own_answers.choose(pool, wanted, ANCHOR, seen=seen)
        ]
        wanted = min(wanted, seen or wanted)
        note = f"{wanted} old prompts, from a pool of {len(pool)}, on which the model is compared "
        return [*examples, *anchors], [note + "with the base"]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("kl",), logits="policy+reference")

    def term(self) -> Term:
        """See `LossMethod.term`."""
        forward = self.options.direction == "forward"
        return Term(divergence=divergence if forward else lambda now, base: divergence(base, now))

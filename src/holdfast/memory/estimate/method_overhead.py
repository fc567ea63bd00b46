"""Declares the memory that a method takes in a training step beyond plain training.

Methods that compare the model with the untouched base keep whole logits of both, where plain
training works in tiles. Under LoRA the base is the model with its adapters switched off, so its
pass costs no second copy of the weights, and it is over before the model's own pass begins: of it
only the logits stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

Logits = Literal["none", "policy+reference", "divergence"]
ORDER: tuple[Logits, ...] = get_args(Logits)
"""From what takes least to what takes most."""
PER_COMPARED_LOGIT: dict[Logits, int] = {"none": 0, "policy+reference": 36, "divergence": 68}
"""Bytes per position and word at the peak of the loss: float32 logits, log-probabilities, their
exponentials and differences, forward and backward. From traces of `holdfast.train.objective` and of
TRL 1.16's generalised Jensen-Shannon divergence (`GKDTrainer.generalized_jsd_loss`)."""
PER_PROBED_LOGIT = 20
"""The same for a pass without gradients that compares the two."""


@dataclass(frozen=True, slots=True)
class MethodOverhead:
    """The memory that methods take on top of plain training; the default is none.

    Attributes:
        names: of the methods that take something, for the plan's explanation.
        logits: whose whole logits are kept. `none`: nobody's, TRL's tiled head is used.
            `policy+reference`: the model's and the base's, for a divergence token by token.
            `divergence`: the same in TRL's generalised Jensen-Shannon divergence.
        everywhere: whole logits of every position, not only of supervised ones.
        copies: copies of what is trained (initial weights, Fisher information). Under plain LoRA
            they count nothing: small products tell how far a matrix has moved.
        kept: copies of what is trained in float32, of plain LoRA as well: weights of an earlier
            step, moving averages. They are not sharded.
        second_pass: the base reads every row too, though nobody needs its whole logits.
        generated_tokens: the model answers in the training loop, at most so many tokens.
        served: by a vLLM that lies beside the training, or on another GPU.
        answers: that it draws, and learns from, for each example; they are rows of their own, as
            many at a time as a micro-batch holds.
        drawn: answers for each example seen in a step, where these are not all learned from, or
            more than once; None: as `answers` says. They take time and no memory.
        rows: of the model for each example that it is given: 2 where it learns from pairs.
        teacher_parameters: of another model that teaches, beside the student.
        probed_tokens: at checkpoints one row's whole logits are compared with the base's, at so
            many positions.
    """

    names: tuple[str, ...] = ()
    logits: Logits = "none"
    everywhere: bool = False
    copies: int = 0
    kept: int = 0
    second_pass: bool = False
    generated_tokens: int = 0
    served: bool = False
    answers: int = 1
    drawn: float | None = None
    rows: int = 1
    teacher_parameters: int = 0
    probed_tokens: int = 0

    @property
    def reference(self) -> bool:
        """Whether whole logits of the base are kept."""
        return self.logits != "none"

    @property
    def reads(self) -> bool:
        """Whether the base reads what is trained on."""
        return self.second_pass or self.reference

    @property
    def asks(self) -> bool:
        """Whether anything is taken at all."""
        return replace(self, names=()) != NOTHING


NOTHING = MethodOverhead()
"""Plain training."""


def combined(overheads: Iterable[MethodOverhead]) -> MethodOverhead:
    """The overhead of several methods of one arm.

    They share one forward pass, so of logits and answers the largest counts; their copies add up.
    """
    given = [one for one in overheads if one.asks]
    return MethodOverhead(
        names=tuple(dict.fromkeys(name for one in given for name in one.names)),
        logits=max((one.logits for one in given), key=ORDER.index, default="none"),
        everywhere=any(one.everywhere for one in given),
        copies=sum(one.copies for one in given),
        kept=sum(one.kept for one in given),
        second_pass=any(one.second_pass for one in given),
        generated_tokens=max((one.generated_tokens for one in given), default=0),
        served=any(one.served for one in given),
        answers=max((one.answers for one in given), default=1),
        drawn=max((one.drawn for one in given if one.drawn is not None), default=None),
        rows=max((one.rows for one in given), default=1),
        teacher_parameters=sum(one.teacher_parameters for one in given),
        probed_tokens=max((one.probed_tokens for one in given), default=0),
    )

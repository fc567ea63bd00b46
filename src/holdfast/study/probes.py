"""Has the untouched model answer the task's own questions, for the meters to compare with.

Some of the training questions, evenly spaced, answered at temperature 1: drawn from the base, so
that the mean of log-probability ratios on them is an unbiased estimate of KL(base‖tuned).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.config.arms import MeterSpec
from holdfast.data.thinking import answered, learned
from holdfast.engines.chunks import REPLIES
from holdfast.errors import DataError
from holdfast.methods import EXAMPLES, MethodContext, SharedWork
from holdfast.methods._context import asks
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.types import Example


def asked_by_meters(meters: MeterSpec, plain: Sequence[Example]) -> int:
    """Questions that the meters read; none where the training data has none.

    Raises:
        DataError: training is to stop by a meter, and there can be none.
    """
    if any(one.messages for one in plain):
        return meters.probes
    if meters.stop:
        raise DataError(
            "the training data is plain text, and the meters ask its questions",
            where="meters.stop",
            remedy="leave meters.stop out",
        )
    return 0


def probes(context: MethodContext, count: int) -> SharedWork:
    """The stage that makes them.

    Args:
        context: see `MethodContext`.
        count: questions, at most.
    """
    plain = [one for one in context.plain if one.messages]
    count = min(count, len(plain))
    asked = [plain[i * len(plain) // count] for i in range(count)]
    sampling = context.sampling.model_copy(
        update={"temperature": 1.0, "top_p": 1.0, "samples": 1, "seed": context.seed}
    )
    identity = {
        "method": "probes",
        "questions": store.fingerprint(
            [[one.id, one.messages, *([one.tools] if one.tools else [])] for one in asked]
        ),
        "sampling": sampling.model_dump(),
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        replies = context.ask(asked, sampling, folder, progress, REPLIES)
        said = [
            replace(learned(question, reply, "own answer"), meta={})
            for question, reply in zip(asked, replies, strict=True)
            if answered(reply).text.strip()
        ]
        if not said:
            raise DataError(
                "the untouched model answers none of the task's questions",
                where="meters",
                remedy="set `meters: {probes: 0}`",
            )
        store.write_jsonl(folder / EXAMPLES, said)
        return {"probes": len(said)}

    name = f"probes-{count}-{store.fingerprint(identity)[:6]}"
    return SharedWork(name, identity, make, asks=asks(count, count, sampling))

"""Checks, before anything is written, that the models' chat templates show all that is asked.

Only tokenizers are loaded; `holdfast.data.chat_check` and `holdfast.data.shown` do the looking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast import models
from holdfast.data.chat_check import Learned, about_template, check_learned
from holdfast.data.shown import check_asked
from holdfast.errors import HoldfastError
from holdfast.models import ModelRef, external
from holdfast.study.session import Session
from holdfast.train.data import stops_of
from holdfast.types import BASE


def check_chats(session: Session) -> list[str]:
    """Look at each model's template, the training set and what is asked.

    Returns:
        Notices: the date that a template is told, whether the model thinks, what is not shown.

    Raises:
        HoldfastError: a template is broken, or would drop something without a word; an example
            cannot be learned.
    """
    notices: list[str] = []
    found = _models(session)
    for name, ref in found.items():
        asked = [one for task in session.plan.tasks for one in session.measuring.asked[task]]
        in_turns = [one for one in asked if one.messages and not one.meta.get("continue")]
        if not (session.plain or in_turns):
            continue  # bare text only: no template is needed
        tokenizer = models.load_tokenizer(ref)
        notices += about_template(tokenizer, name if len(found) > 1 else "")
        for arm in (BASE, *session.arms):
            for task in session.plan.tasks:
                with _where(f"tasks.{task}"):
                    notices += check_asked(tokenizer, session.ask(arm, task))
        if session.plain and name == BASE:
            train = session.study.train
            how = Learned(
                stops_of(tokenizer, ref), train.completion_only_loss, train.cut_template_header,
                train.train_on,
            )  # fmt: skip
            with _where(f"tasks.{session.study.target}"):
                notices += check_learned(tokenizer, session.plain, how)
            notices += _last_only(session)
    return notices


def _models(session: Session) -> dict[str, ModelRef]:
    """The models that are asked through a template of theirs, no two alike."""
    found = {BASE: session.plan.model}
    for name, arm in session.arms.items():
        if arm.foreign is not None:
            found[name] = arm.foreign.ref
    here: dict[tuple[str, str | None, str | None], tuple[str, ModelRef]] = {}
    if any(arm.foreign and arm.foreign.form == "answers" for arm in session.arms.values()):
        return {}
    for name, ref in found.items():
        engine = external.engine_of(ref, session.study.answer.engine)
        if engine == "hf" or (name == BASE and session.plain):
            here.setdefault((ref.base, ref.revision, ref.gguf), (name, ref))
    return dict(here.values())


def _last_only(session: Session) -> list[str]:
    """Arms whose methods look at the last answer only, where every answer is learned."""
    if session.study.train.train_on == "last":
        return []
    return [
        f"arm {name}: {', '.join(method.recipe() for method in arm.made)}: looks at the last "
        "answer of a conversation only, and earlier ones are "
        + ("not learned" if any(one.own_trainer for one in arm.loss) else "learned as they are")
        for name, arm in session.arms.items()
        if arm.trains and arm.made
    ]


@contextmanager
def _where(place: str) -> Iterator[None]:
    """Say where the trouble was met."""
    try:
        yield
    except HoldfastError as error:
        error.where = f"{place}: {error.where}" if error.where else place
        raise

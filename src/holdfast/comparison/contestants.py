"""Finds the base and the tuned models of a comparison, their names, engines, and common tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast import tasks
from holdfast.analysis.selection import check_rule
from holdfast.comparison.answer_files import Given
from holdfast.comparison.request import SOURCE, Request
from holdfast.config import Study
from holdfast.config.section import LONGEST_NAME, made_usable
from holdfast.errors import DataError, UsageError
from holdfast.models import chat_settings_of, external
from holdfast.models.external import ExternalModel
from holdfast.models.files import check_template
from holdfast.types import BASE, ChatSettings


def models(request: Request) -> tuple[ExternalModel, dict[str, ExternalModel]]:
    """The base and the tuned models by name, no two of one name.

    Raises:
        ModelError: one that cannot be used, or an adapter of another base.
        UsageError: there is nothing to compare with.
    """
    if len(request.models) < 2:
        raise UsageError(
            "needs a base and at least one tuned model",
            where=SOURCE,
            remedy="holdfast compare BASE TUNED [TUNED2 ...] --tasks ...",
        )
    first, *others = request.models
    base = _found(request, first, None)
    every = [_found(request, one, base) for one in others]
    tuned: dict[str, ExternalModel] = {}
    taken = {BASE}  # case does not count, as in some file systems
    for one in every:
        name, number = one.name, 2
        while name.casefold() in taken:
            name, number = made_usable(f"{one.name[: LONGEST_NAME - 9]}-{number}"), number + 1
        tuned[name] = replace(one, name=name)
        taken.add(name.casefold())
    return base, tuned


def _found(request: Request, said: str, base: ExternalModel | None) -> ExternalModel:
    if request.replies:
        return external.answers(said)
    return external.find(said, base, request.any_base, request.trust_remote_code)


def asked_alike(
    base: ExternalModel, tuned: Mapping[str, ExternalModel], study: Study
) -> tuple[ExternalModel, dict[str, ExternalModel]]:
    """The same models with the study's chat settings: template, variables, thinking and date.

    Raises:
        ModelError: one is to be asked through a chat template that it does not have.
    """
    chat = chat_settings_of(study.model)
    if chat.template is None and tasks.any_chats(study.tasks, SOURCE):
        for one in (base, *tuned.values()):
            if one.form not in external.ELSEWHERE and (folder := Path(one.ref.base)).is_dir():
                check_template(folder)
    return _told(base, chat), {name: _told(one, chat) for name, one in tuned.items()}


def _told(model: ExternalModel, chat: ChatSettings) -> ExternalModel:
    return model if model.form == "answers" else replace(model, ref=replace(model.ref, chat=chat))


def run_name(base: ExternalModel, tuned: Sequence[str]) -> str:
    """What the run folder is called where nobody says it."""
    more = f"-and-{len(tuned) - 1}-more" if len(tuned) > 1 else ""
    return made_usable(f"{base.name}-vs-{tuned[0]}{more}")


def check_engines(kinds: Mapping[str, str], allowed: bool) -> None:
    """Refuse base and tuned models that answer through different engines, unless it is allowed.

    Args:
        kinds: the engine of each model, by name.
        allowed: somebody asked for it.

    Raises:
        UsageError: naming the two.
    """
    for who, kind in kinds.items():
        if kind != kinds[BASE] and not allowed:
            raise UsageError(
                f"base answers through {kinds[BASE]} and {who} through {kind}: their figures "
                "would differ by template, precision and decoding as well",
                where=SOURCE,
                remedy="put both behind endpoints or load both here; or add --mixed-engines, and "
                "every figure says so",
            )


def answered_by_all(
    study: Study, held: Mapping[str, Given], targets: Sequence[str]
) -> tuple[Study, list[str]]:
    """The study with the tasks that every file answers, and a note on those left out."""
    kept = [one for one in study.tasks if all(one in own.replies for own in held.values())]
    if not kept:
        lacking = "; ".join(
            f"{own.file} answers {', '.join(own.replies) or 'none of them'}"
            for own in held.values()
        )
        raise DataError(
            f"the files have no task in common: {lacking}",
            where=SOURCE,
            remedy="every file must answer the same task",
        )
    notes = [
        f"{one} is left out: {', '.join(o.file for o in held.values() if one not in o.replies)} "
        "does not answer it."
        for one in study.tasks
        if one not in kept
    ]
    aims = [one for one in targets if one in kept] or kept[:1]
    role = {one: "target" if one in aims else "retained" for one in kept}
    specs = {one: study.tasks[one].model_copy(update={"role": role[one]}) for one in kept}
    check_rule(study.ship, specs, SOURCE)
    return study.model_copy(update={"tasks": specs}), notes

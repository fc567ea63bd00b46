"""Refuses arms whose methods do not go together, or with this training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from holdfast.config import Study
from holdfast.errors import StudyError
from holdfast.methods import Term
from holdfast.registry import nearest
from holdfast.study.session import Arm
from holdfast.train import adapters
from holdfast.types import BASE

GUARDED = "guardspace"
"""A variant of LoRA, and the method that says where its adapters begin."""
PLAIN = "train.lora.variant lora, rslora or corda without modules trained whole"


def check(arm: Arm, arms: Mapping[str, Arm], study: Study, where: str) -> None:
    """Refuse an arm that could not be trained, or would not be what it says.

    Args:
        arm: of `study`, with its methods built.
        arms: all of the study.
        study: what the user wrote.
        where: for messages.

    Raises:
        StudyError: naming the two things that do not go together.
    """
    _order(arm, where)
    check_training(arm, study, where)
    _weights(arm, arms, study.train.method, where)
    _asking(arm, study.tasks, where)


def _order(arm: Arm, where: str) -> None:
    mixed = [one.mixes for one in arm.data]
    if mixed != sorted(mixed):
        raise StudyError(
            "methods that mix in other data come last, or their share would not hold",
            where=f"{where}.data", remedy="put selfgen and rewrite before replay",
        )  # fmt: skip
    mixers = [one for one in arm.made if one.mixed()]
    if (whole := sum(one.mixed() for one in mixers)) > 1 - 1e-9:
        names = ", ".join(dict.fromkeys(one.plugin for one in mixers))
        raise StudyError(
            f"{names} would mix in {whole:.0%} of the training set, which leaves nothing of the "
            "task's own",
            where=where, remedy="lower their shares, so that together they are less than 1",
        )  # fmt: skip


def check_training(arm: Arm, study: Study, where: str) -> None:
    """Refuse an arm whose methods do not go together in one training, or with its settings.

    Args:
        arm: its methods built; nothing else of the study's arms is looked at.
        study: whose training method and server are meant.
        where: for messages.

    Raises:
        StudyError: naming the two things that do not go together.
    """
    method, lora = study.train.method, arm.variant.train.lora
    trained = arm.variant.source != BASE and study.answer.server is not None
    if trained and (method == "full" or not lora.adds):
        what = "whole weights" if method == "full" else lora.kind
        raise StudyError(
            f"a server is given adapters that add to its weights as it runs, not {what}",
            where=f"{where}, answer.server",
            remedy=f"use {PLAIN}; or answer.engine: hf",
        )
    if arm.variant.trains and method != "full":
        try:
            adapters.check(arm.variant.train, "single", method == "qlora")
        except StudyError as error:
            error.where = f"{where}.{error.where}"
            raise
    own = [one for one in arm.loss if one.own_trainer]
    if own and len(arm.loss) > 1:
        raise StudyError(
            f"{own[0].recipe()} has a loss of its own, to which nothing can be added",
            where=f"{where}.loss", remedy="give the other methods an arm of their own",
        )  # fmt: skip
    asking = next((one for one in own if one.asks_questions), None)
    if asking is not None and arm.data:
        raise StudyError(
            f"{asking.plugin} asks the training questions itself, as they are given, and what "
            f"{arm.data[0].plugin} makes of them would not be looked at",
            where=f"{where}.data", remedy=f"give {arm.data[0].plugin} an arm of its own",
        )  # fmt: skip
    looking = [one.plugin for one in arm.loss if one.looks]
    if len(looking) > 1:
        raise StudyError(
            f"{looking[0]} and {looking[1]} would each look at the other's examples too",
            where=f"{where}.loss", remedy="give one of them an arm of its own",
        )  # fmt: skip
    if method != "full" and arm.variant.trains and lora.variant == GUARDED not in looking:
        raise StudyError(
            f"adapters of the variant {GUARDED} begin where the method of that name says",
            where=f"{where}.train.lora.variant", remedy=f"add `loss: [{GUARDED}]` to this arm",
        )  # fmt: skip
    terms = [term for one in arm.loss if (term := one.term())]
    _phases(terms, where)
    compares = sum(term.divergence is not None for term in terms)
    if compares > 1:
        raise StudyError(
            "two methods compare with the base, and each would act on the other's tokens",
            where=f"{where}.loss", remedy="use one `kl` or `mask_target` per arm",
        )  # fmt: skip
    if own and arm.variant.train.neftune_noise_alpha:
        raise StudyError(
            f"{own[0].recipe()} draws its own answers, which noise on the embeddings would spoil",
            where=f"{where}.loss", remedy="leave train.neftune_noise_alpha out",
        )  # fmt: skip
    if own and (fast := arm.variant.train.of_our_trainer):
        raise StudyError(
            f"{own[0].recipe()} has a trainer of its own, which knows nothing of {fast}",
            where=f"{where}.loss", remedy=f"switch {fast} off under `train:` of this arm",
        )  # fmt: skip
    if own and not arm.variant.train.completion_only_loss:
        raise StudyError(
            f"{own[0].recipe()} learns from answers alone, and completion_only_loss: false asks "
            "for prompts too",
            where=f"{where}.loss",
            remedy="leave completion_only_loss out, or give this arm a study of its own",
        )
    if own and not arm.variant.train.reference_by_switch:
        raise StudyError(
            f"{own[0].recipe()} trains adapters, and where all weights are trained there are none",
            where=f"{where}.loss", remedy="use train.method lora or qlora",
        )  # fmt: skip
    if any(term.compares for term in terms) and not arm.variant.train.reference_by_switch:
        raise StudyError(
            "needs the base beside the tuned model, and when all weights are trained there is none",
            where=f"{where}.loss",
            remedy="use train.method lora or qlora: the base is the adapter switched off",
        )


def _phases(terms: Sequence[Term], where: str) -> None:
    if sum(term.phases is not None for term in terms) > 1:
        raise StudyError(
            "two methods give examples steps of their own, and each step can be on one kind only",
            where=f"{where}.loss", remedy="use one `lisa` per arm",
        )  # fmt: skip


def _weights(arm: Arm, arms: Mapping[str, Arm], method: str, where: str) -> None:
    if arm.weights and arm.variant.source == BASE:
        raise StudyError(
            "the untouched model has no change that could be scaled or merged",
            where=f"{where}.weights",
            remedy="name an arm that trains: `from: sft`",
        )
    scales = any(one.factors for one in arm.weights)
    lora = arm.variant.train.lora
    if scales and method != "full" and not lora.adds:
        raise StudyError(
            f"a share of the change of {lora.kind} is no interpolation of base and tuned model",
            where=f"{where}.weights",
            remedy=f"use {PLAIN}, or leave `scale` out",
        )
    merges = [one for one in arm.weights if one.makes]
    if not merges:
        return
    name = merges[0].plugin
    if method != "full" and merges[0].products and not lora.adds:
        raise StudyError(
            f"what {lora.kind} changes is no plain product, so it cannot be merged",
            where=f"{where}.weights",
            remedy=f"use {PLAIN}, or leave `{name}` out",
        )
    if len(merges) > 1:
        raise StudyError(
            f"{name} and {merges[1].plugin} would each make the weights anew",
            where=f"{where}.weights",
            remedy="give each an arm of its own",
        )
    if method == "full" and not merges[0].whole:
        raise StudyError(
            f"{name} makes adapters of adapters, and where all weights are trained there are none",
            where=f"{where}.weights",
            remedy=f"use train.method lora or qlora, or leave `{name}` out",
        )
    if method == "full" and scales:
        raise StudyError(
            f"shares are taken of what was trained, and not of what {name} makes of it",
            where=f"{where}.weights",
            remedy="give `scale` an arm of its own",
        )
    if arm.variant.trains:
        raise StudyError(
            "merged weights are measured beside those they are made of, as an arm of their own",
            where=f"{where}.weights",
            remedy=f"put `{name}` under an arm with `from:` and the name of this one",
        )
    trained = [name for name, one in arms.items() if one.variant.trains]
    if arm.variant.source in merges[0].partners:
        raise StudyError(
            f"{name}: {arm.variant.source!r} would be merged with itself",
            where=f"{where}.weights", remedy="name another arm under `with`",
        )  # fmt: skip
    for partner in merges[0].partners:
        if partner not in trained:
            raise StudyError(
                f"{name}: {partner!r} is no arm with a training of its own"
                f"{nearest(partner, trained)}",
                where=f"{where}.weights",
                remedy=f"arms that train: {', '.join(trained)}",
            )


def _asking(arm: Arm, tasks: Collection[str], where: str) -> None:
    for one in arm.ask:
        for name in getattr(one.options, "tasks", None) or ():  # an option of its own
            if name not in tasks:
                raise StudyError(
                    f"tasks: no task is called {name!r}{nearest(name, tasks)}",
                    where=f"{where}.ask",
                    remedy=f"this study measures: {', '.join(tasks)}",
                )

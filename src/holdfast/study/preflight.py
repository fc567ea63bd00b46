"""Checks everything that can fail before a model is asked, when a study has still cost nothing.

`check` runs before anything is written, whenever there is work left to do, and loads no weights:
models are built from their configuration on torch's meta device. What it changes or finds that
whoever reads the figures must know comes back as notices; they are printed, and kept in the run
folder for the report.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.data.chat_check import about_template, check_learned
from holdfast.data.shown import check_asked
from holdfast.endpoint import Endpoint
from holdfast.engines import FROM_FILES
from holdfast.engines.prompt_proof import check_served
from holdfast.errors import HoldfastError, ModelError, Unreachable
from holdfast.memory.model.stored import BNB4, stored_in
from holdfast.memory.planner.candidates import shared_by
from holdfast.models import ModelRef, attention, external
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.runs.stages import Step
from holdfast.study import asking, readiness
from holdfast.study.session import Session
from holdfast.train.adapter_check import check_fast, check_mergeable, check_model
from holdfast.train.arguments import check_settings
from holdfast.train.data import learned
from holdfast.train.optimizers import check_names, refuse
from holdfast.types import BASE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED = (
    "models reachable, packages, disk space, weights and tokenizers whole, judges, chat templates, "
    "settings, adapters"
)
"""What `CHECKS` look at, in words."""
LATER = (
    "Checked by each worker where it starts: devices and their memory, precision, attention, "
    "kernels, vLLM."
)
"""What is left out of `CHECKS` where other machines make the stages, in words."""
Check = Callable[[Session], Sequence[str]]
"""Raises what would fail later; returns notices."""


def check(session: Session, elsewhere: bool = False) -> list[str]:
    """Refuse a study that would fail once money is spent.

    Args:
        session: prepared; nothing of it has run.
        elsewhere: other machines make its stages, and each of them looks at its own devices
            (`check_devices`): nothing of this one's counts.

    Returns:
        Notices, in sentences.

    Raises:
        HoldfastError: what would fail, where, and what to do about it.
    """
    left_out = OF_DEVICES if elsewhere else frozenset[Check]()
    every = (one for one in CHECKS if one not in left_out)
    return list(dict.fromkeys(notice for one in every for notice in one(session)))


def check_devices(session: Session) -> list[str]:
    """The part of `check` that depends on the machine, for a worker on one of its own."""
    every = (one for one in CHECKS if one in OF_DEVICES)
    return list(dict.fromkeys(notice for one in every for notice in one(session)))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a dry run looked at.

    Attributes:
        checked: whether models were looked at.
        notices: what whoever reads the figures must know, in sentences.
        lines: both in words.
    """

    checked: bool
    notices: list[str]
    lines: list[str]


def looked_at(session: Session, steps: Sequence[Step], elsewhere: bool = False) -> Looked:
    """Check a study as `check` does, as far as that is possible here; for a dry run.

    A model that only another machine may reach is said, and no mistake of the study.

    Args:
        session: prepared.
        steps: its schedule; where all is done nothing is looked at.
        elsewhere: see `check`.

    Raises:
        HoldfastError: see `check`.
    """
    notices = list(session.plan.notices)
    if all(step.done for step in steps):
        return Looked(False, notices, notices)
    absent = [name for name in readiness.ANSWERING if importlib.util.find_spec(name) is None]
    if absent and next(readiness.loaded(session), None) is not None:
        said = f"Not checked, because {absent[0]} is not installed: {CHECKED}."
        return Looked(False, notices, [*notices, said])
    try:
        notices += check(session, elsewhere)
    except Unreachable as error:  # another machine may reach it
        return Looked(False, notices, [*notices, f"Not checked: {error}"])
    later = [LATER] if elsewhere else []
    return Looked(True, notices, [*notices, f"Checked: {CHECKED}.", *later])


def write_notices(folder: Path, notices: Sequence[str]) -> None:
    """Keep notices in a run folder."""
    store.write_sealed(folder / NOTICES, {"notices": list(notices)})


def add_notices(folder: Path, notices: Sequence[str]) -> list[str]:
    """Keep more of them, such as a worker's; returns those that are new."""
    known = store.read_json(folder / NOTICES)["notices"] if (folder / NOTICES).is_file() else []
    new = [one for one in notices if one not in known]
    if new:
        write_notices(folder, [*known, *new])
    return new


def check_chats(session: Session) -> list[str]:
    """Each model's chat template shows it the training set and all that is asked.

    Only tokenizers are loaded; `holdfast.data.chat_check` and `holdfast.data.shown` do the looking.

    Returns:
        Notices: the date that a template is told, whether the model thinks, what is not shown.

    Raises:
        HoldfastError: a template is broken, or would drop something without a word; an example
            cannot be learned.
    """
    notices: list[str] = []
    found = _asked_in_chats(session)
    for name, ref in found.items():
        asked = [one for task in session.plan.tasks for one in session.measuring.asked[task]]
        in_turns = [one for one in asked if one.messages and not one.meta.get("continue")]
        if not (session.plain or in_turns):
            continue
        chats = bool(in_turns) or any(one.messages for one in session.plain)
        tokenizer = models.load_tokenizer(ref, chats)
        if chats:  # bare text needs no template
            notices += about_template(tokenizer, name if len(found) > 1 else "")
            notices += _check_asked(session, tokenizer)
        if session.plain and name == BASE:
            how = learned(tokenizer, ref, session.study.train)
            with _where(f"tasks.{', '.join(session.study.targets)}"):
                notices += check_learned(tokenizer, session.plain, how)
            notices += _last_only(session)
    return notices


def _check_asked(session: Session, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """All that is asked is shown by the template, of the base and of arms that ask otherwise."""
    notices: list[str] = []
    otherwise = [arm for arm, own in session.arms.items() if own.ask]
    for arm in (BASE, *otherwise):
        for task in session.plan.tasks:
            with _where(f"tasks.{task}"):
                notices += check_asked(tokenizer, session.ask(arm, task))
    return notices


def _asked_in_chats(session: Session) -> dict[str, ModelRef]:
    """The models that are asked through a template of theirs, no two alike."""
    found = {BASE: session.plan.model}
    for name, arm in session.arms.items():
        if arm.foreign is not None:
            found[name] = arm.foreign.ref
    here: dict[tuple[str, str | None], tuple[str, ModelRef]] = {}
    if any(arm.foreign and arm.foreign.form == "answers" for arm in session.arms.values()):
        return {}
    for name, ref in found.items():
        engine = external.engine_of(ref, session.study.answer.engine)
        if engine in FROM_FILES or (name == BASE and session.plain):
            here.setdefault((ref.base, ref.revision), (name, ref))
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


def _texts(session: Session) -> list[str]:
    """What is learned and held-out text can be spelled, where the model is loaded here."""
    return readiness.check_spelled(session) if BASE in _asked_in_chats(session) else []


def _trainer(session: Session) -> list[str]:
    """The trainer takes every arm's settings on this device, and the model its kernels."""
    fast: set[tuple[object, ...]] = set()
    for name, arm in session.arms.items():
        train = arm.variant.train
        if arm.variant.trains:
            with _where(f"arms.{name}"):
                check_settings(train, session.study.hardware.device, session.plan.steps)
                if (train.packing or train.kernels) and (train.packing, train.kernels) not in fast:
                    check_fast(session.plan.model, train)
                    fast.add((train.packing, train.kernels))
    return []


def _training(session: Session) -> list[str]:
    """There is every arm's optimiser, and the model takes the adapters that they ask for."""
    notices: list[str] = []
    built: dict[tuple[object, ...], list[str]] = {}
    ref, device = session.plan.model, session.study.hardware.device
    if session.plan.trained:
        _check_bits(session)
    for name, arm in session.arms.items():
        train = arm.variant.train
        with _where(f"arms.{name}"):
            if arm.variant.trains:
                check_names(train)
                refuse(train)
                key = (train.method, train.lora.model_dump_json())
                if key not in built:
                    built[key] = check_model(ref, train, device)
                notices += built[key]
            makes = [method for method in arm.weights if method.makes]
            if any(method.products for method in makes) and train.method != "full":
                matrices = check_mergeable(ref, train)
                for method in makes:
                    method.check_targets(matrices)
            for method in makes:
                method.check_base(ref)
                examples, epochs = method.lessons()
                if (more := len(examples) * epochs) > session.plan.steps:
                    notices.append(
                        f"arm {name} learns {more:,} more optimiser steps after training, which "
                        f"takes {session.plan.steps:,}"
                    )
    return notices


def _check_bits(session: Session) -> None:
    """Refuse to go on with a base whose 4 bits could only now be seen: the plan knew nothing of it.

    Raises:
        ModelError: its configuration has come from the hub since the study was planned.
    """
    held = stored_in(session.plan.model.base, session.plan.model.revision)
    if held is not None and held.kind == BNB4 and not session.pool.nf4:
        raise ModelError(
            "is stored in 4 bits, which could not be seen before its configuration was fetched",
            where=session.plan.model.base,
            remedy="give the same command again, or set train.method: qlora",
        )


def _asking(session: Session) -> list[str]:
    """Models and servers can be asked as the study says."""
    foreign = [arm.foreign for arm in session.arms.values() if arm.foreign]
    if any(one.form == "answers" for one in foreign):
        return []
    base, how = session.plan.model, session.measuring
    served = []
    if (server := session.pool.server) is not None:
        asked = [one for task in session.plan.tasks for one in how.asked[task][:4]]
        adapters = any(arm.variant.source != BASE for arm in session.arms.values())
        served = check_served(Endpoint(server), base, asked, adapters)
    return [
        *served,
        *asking.check_windows(base, how.asked),
        *asking.check_room(base, how.samplings, how.asked),
        *asking.check_drawn(
            base, _drawn(session), [one for part in session.parts for one in part.plain]
        ),
        *asking.check_heeded([base, *(one.ref for one in foreign)], how.samplings),
    ]


def _drawn(session: Session) -> dict[str, tuple[str, int]]:
    """By arm, the method whose answers are graded as it trains, and its longest answer."""
    return {
        name: (method.plugin, getattr(method.options, "max_new_tokens", 0))
        for name, arm in session.arms.items()
        for method in arm.loss
        if method.graded
    }


def _precision(session: Session) -> list[str]:
    """What is computed in, where that is not bfloat16 on a GPU or float32 on a CPU."""
    trained = [arm.train for arm in session.arms.values() if arm.variant.trains]
    every = [session.pool.precision(), *map(session.pool.precision, trained)]
    return [one.notice for one in every if one is not None and one.notice]


def _idle_gpus(session: Session) -> list[str]:
    """A global batch too small for the GPUs, or not divisible by their number."""
    there = sum(not gpu.mig for gpu in session.gpus)
    found = []
    for arm in session.arms.values():
        batch = arm.train.batch_size
        if arm.variant.trains and (used := shared_by(batch, there)) < there:
            found.append(
                f"{there} GPUs and {batch} examples per step: no more than {used} of them can "
                "share a step, the others stay idle unless the layers are split over them "
                "(train.global_batch_size)."
            )
    return found


def _attention(session: Session) -> list[str]:
    """The model takes the attention and the scaling of positions that the study asks for."""
    ref = session.plan.model
    if ref.attention or ref.rope:
        attention.check(ref, models.pick_device(session.study.hardware.device))
    return []


@contextmanager
def _where(place: str) -> Iterator[None]:
    """Say where the trouble was met."""
    try:
        yield
    except HoldfastError as error:
        error.where = f"{place}: {error.where}" if error.where else place
        raise


CHECKS: tuple[Check, ...] = (
    readiness.reachable,
    readiness.packages,
    readiness.vllm,
    readiness.drawing,
    readiness.room,
    readiness.whole,
    readiness.judges,
    _attention,
    check_chats,
    _texts,
    _trainer,
    _training,
    _asking,
    _precision,
    _idle_gpus,
)
"""In this order, the cheapest first."""
OF_DEVICES: frozenset[Check] = frozenset(
    (*readiness.OF_DEVICES, _attention, _trainer, _precision, _idle_gpus)
)
"""Those that depend on the machine where the stages are made."""

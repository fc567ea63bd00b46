"""Are the models of a study there and whole, and is there room for what it will write?

Part of `holdfast.study.preflight`: nothing is loaded, models are built of their configuration.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.analysis.selection.rule import UNSCORED_LIMIT
from holdfast.data.encoding import IDS
from holdfast.data.windows import TEXT, text_ids
from holdfast.endpoint import is_endpoint
from holdfast.endpoint.client import require_packages
from holdfast.engines import FROM_FILES
from holdfast.engines.pace import ROWS
from holdfast.engines.vllm import program, servable
from holdfast.environment import install_command
from holdfast.errors import (
    DataError,
    FolderError,
    HoldfastError,
    MissingDependency,
    StudyError,
    located,
)
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.targets import lora_parameters
from holdfast.memory.planner.inference import answering_bytes, longest
from holdfast.memory.planner.request import CPU, PlanRequest
from holdfast.models import ModelRef, cpu_linear, peft_adapter, skeleton, weights_check
from holdfast.study.session import Arm, Session
from holdfast.train.adapter_check import build, on_meta
from holdfast.train.planning import arms_of, fitting, plan_study
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOOKED = 64
"""Documents of a task, and examples of the training set, that are looked at, evenly spread."""
READ = 4000
"""Characters of each turn of an example."""
ANSWERING = ("torch", "transformers", "peft")
TRAINING = (*ANSWERING, "trl", "accelerate", "datasets")
SAVED = 4
"""That a trained number takes in a checkpoint."""
MOMENTS = 8
"""Bytes of optimiser state for each trained number, beside the newest checkpoint."""


def packages(session: Session) -> Sequence[str]:
    """Everything that will be imported can be."""
    if not list(loaded(session)):
        return []
    trains = any(arm.trains for arm in session.arms.values())
    needed = TRAINING if trains else ANSWERING
    if session.pool.nf4 or (trains and session.study.train.method == "qlora"):
        needed = (*needed, "bitsandbytes")
    for name in needed:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingDependency(
                f"this study needs {name}, which cannot be imported: {error}",
                remedy=install_command("train", name),
            ) from error
    return []


def reachable(session: Session) -> Sequence[str]:
    """Every model, adapter and judge is there, or can be had from the hub."""
    for where, ref in loaded(session):
        with located(where):
            skeleton.reach(ref)
    return []


def room(session: Session) -> Sequence[str]:
    """The disk holds the checkpoints that training will write."""
    needed = checkpoint_bytes(session)
    place = session.folder.absolute()
    while not place.exists():
        place = place.parent
    there = sum(one.stat().st_size for one in (session.folder / "train").rglob("*.safetensors"))
    free = shutil.disk_usage(place).free
    if needed - there > free:
        raise FolderError(
            f"the checkpoints will take about {needed / GIB:.1f} GiB, and the disk has "
            f"{free / GIB:.1f} GiB free",
            where=str(session.folder),
            remedy="write fewer (train.checkpoints, seeds, arms) or smaller ones (train.method: "
            "lora, train.lora.r), make room, or choose another place with --runs-dir; "
            "train.save_total_limit deletes only what was measured already",
        )
    return []


def checkpoint_bytes(session: Session) -> int:
    """About what a study's checkpoints take on disk; 0 where the model's shape is not known."""
    trained = [session.arms[name] for name, _ in session.plan.trained]
    most = max((_trained_numbers(session, arm) * MOMENTS for arm in trained), default=0)
    names = {arm for arm, _ in session.plan.trained}
    return sum(arm_bytes(session, name) for name in names) + most


def arm_bytes(session: Session, name: str) -> int:
    """About what the checkpoints of one arm take, all seeds together."""
    arm = session.arms[name]
    kept = 1 + sum(len(one.factors) for one in arm.weights if arm.train.method == "full")
    kept += 2 * len(session.averages(name))  # in the checkpoint, and as weights of their own
    numbers = _trained_numbers(session, arm) * len(session.study.seeds)
    return numbers * SAVED * len(session.plan.save_at) * kept


def _trained_numbers(session: Session, arm: Arm) -> int:
    ref, train = session.plan.model, arm.train
    try:
        shape = read_shape(ref.base, ref.revision)
        if train.method == "full":
            return shape.parameters
        return lora_parameters(shape, train.lora.r, train.lora.target_modules, train.lora.layers)
    except HoldfastError:  # what the planner cannot count may be trained all the same
        return 0


def memory_bytes(session: Session) -> int:
    """About what training and answering take at the most; 0 where the model is not known."""
    study, model = session.study, session.plan.model
    found = [0]
    with suppress(HoldfastError, LookupError):
        shape = read_shape(model.base, model.revision)
        rows = study.answer.batch_size or ROWS["gpu" if session.gpus else "cpu"]
        most = max((one.max_new_tokens for one in session.measuring.samplings.values()), default=0)
        precision = session.pool.precision()
        dtype = precision.dtype if precision else "bfloat16" if session.gpus else "float32"
        one = answering_bytes(shape, session.pool.nf4, longest(shape, most), dtype)
        each = 2 * shape.layers * shape.kv_heads * shape.head_dim * (4 if dtype == "float32" else 2)
        copies = 0 if session.gpus or session.pool.nf4 else cpu_linear.copies_bytes(shape, dtype)
        if copies > cpu_linear.SPARE * host_ram_bytes():
            copies = 0
        found.append(one + rows * (most + 256) * each + copies)
    with suppress(HoldfastError, LookupError, ValueError):
        if session.plan.trained:
            asked = PlanRequest(gpus=tuple(session.gpus), trace=False)
            report = plan_study(study, asked)
            plans = [report.plan] if report.plan else [one.plan for one in report.candidates]
            server = report.comparison.server
            beside = server.takes if server and not server.apart else 0
            found.append(beside + min((one.fullest.total for one in plans), default=0))
    return max(found)


def whole(session: Session) -> Sequence[str]:
    """Every model can be built, its files hold all of it, and its tokenizer goes with it."""
    notices: list[str] = []
    done: set[tuple[str, str | None]] = set()
    for where, ref in loaded(session):
        with located(where):
            plain = replace(ref, adapter=None, scale=1.0)
            if (ref.base, ref.revision) not in done:
                done.add((ref.base, ref.revision))
                model = skeleton.build(plain)
                rows = model.get_input_embeddings().weight.shape[0]
                tokenizer = models.load_tokenizer(plain, chats=False)
                notices += skeleton.check_vocabulary(tokenizer, rows, ref.base)
                notices += weights_check.check_files(plain, model)
            if ref.adapter is not None:
                peft_adapter.check_fits(ref)
    return notices


def judges(session: Session) -> Sequence[str]:
    """Every judge that is a model is there, may be had, has a tokenizer, and fits."""
    for where, judge in session.judges if _loads(session) else ():
        if judge.guard is not None:
            with located(where):
                judge.guard.needs(session.gpus)
    return [
        f"{judge.title} says what answers earn in training, and does not answer now ({why}): "
        "start it before the study."
        for judge in session.rewarding
        if judge.remote and (why := judge.absent())
    ]


def vllm(session: Session) -> Sequence[str]:
    """The program vLLM is there, in a version that is spoken to; what it does not serve is told.

    Raises:
        MissingDependency: it is not, with what installs it.
    """
    if session.study.answer.engine != "vllm" or not _measures(session):
        return []
    found = program.find(session.study.hardware.vllm)
    notices = _untried(found)
    if why := servable.refused_model(session.plan.model, session.pool.nf4):
        notices.append(f"vLLM is not asked ({why}): transformers answer instead, for all models.")
    for name, arm in session.arms.items():
        lora = arm.variant.train.lora
        if arm.trains and arm.variant.train.method != "full" and not lora.adds:
            notices.append(
                f"arm {name}: vLLM takes no adapters of the kind {lora.kind}; each checkpoint's is "
                "merged into the weights, rounded with them, and the server is started with those."
            )
    return notices


def drawing(session: Session) -> Sequence[str]:
    """The server that arms want their answers drawn by can be had, and is told where it will lie.

    Raises:
        MissingDependency: vLLM, or a package; with what installs it.
        StudyError: vLLM does not serve the model, or the adapters that are trained.
        DoesNotFit: training and server together.
    """
    wanted = {name: one for name, one in arms_of(session.study).items() if one.overhead.served}
    if not wanted:
        return []
    require_packages()
    found = program.find(session.study.hardware.vllm)
    notices = _untried(found)
    ref = session.plan.model
    why = servable.refused_model(ref, nf4=False)
    if why := why or servable.refused_settings(skeleton.generation_config(ref)):
        raise StudyError(
            f"vLLM cannot draw the answers of {', '.join(wanted)}: {why}",
            remedy="leave `engine: vllm` out of the method",
        )
    for name in wanted:
        with located(f"arms.{name}"):
            config = build(on_meta(ref), session.arms[name].train)[0].peft_config["default"]
            if why := servable.refused_lora(config.to_dict()):
                raise StudyError(
                    f"vLLM does not take the adapters that are trained: {why}",
                    remedy="leave `engine: vllm` out of the method",
                )
    asked = PlanRequest(gpus=tuple(session.gpus) or CPU, trace=False)
    try:
        report = plan_study(session.study, asked, arms=wanted)
    except HoldfastError:  # a kind that the planner does not know may train all the same
        return notices
    fitting(report)
    place = report.comparison.server
    return [*notices, place.reason.words("en")] if place else notices


def _untried(found: program.Program) -> list[str]:
    """A notice of a vLLM that is newer than what was tried."""
    if not found.untried:
        return []
    return [f"vLLM {found.version} is newer than what was tried ({program.TRIED})."]


def _measures(session: Session) -> bool:
    """Whether any model is asked here."""
    return not any(arm.foreign and arm.foreign.form == "answers" for arm in session.arms.values())


def loaded(session: Session) -> Iterator[tuple[str, ModelRef]]:
    """The models whose weights are loaded here, and where the study names them."""
    foreign = {name: arm.foreign for name, arm in session.arms.items() if arm.foreign is not None}
    base, trains = session.plan.model, any(arm.trains for arm in session.arms.values())
    if any(one.form == "answers" for one in foreign.values()):
        return
    if not is_endpoint(base.base) and (trains or _loads(session)):
        yield "model" if not foreign else "base", base
    for name, one in foreign.items():
        if one.form != "endpoint" and _loads(session):
            yield name, one.ref


def _loads(session: Session) -> bool:
    return session.study.answer.engine in FROM_FILES


OF_DEVICES = (vllm, drawing, judges)
"""Those that depend on the machine where the stages are made."""


def check_spelled(session: Session) -> list[str]:
    """Refuse text of which too much would go unscored; tell what is learned as the unknown token.

    Raises:
        DataError: naming the task, and how many documents the tokenizer cannot spell.
    """
    asked = [one for one in session.measuring.asked.items() if any(TEXT in e.meta for e in one[1])]
    if not (asked or session.plain):
        return []
    tokenizer = models.load_tokenizer(session.plan.model, chats=False)
    if tokenizer.unk_token_id is None:
        return []
    for name, documents in asked:
        some = _spread(documents)
        unknown = sum(_unknown(tokenizer, one.messages[-1].content) for one in some)
        if unknown > UNSCORED_LIMIT * len(some):
            raise DataError(
                f"{unknown} of {len(some)} documents hold characters that the tokenizer does not "
                "know, so they could not be scored",
                where=f"tasks.{name}",
                remedy="name texts in the model's own language and script, or take the task out",
            )
    return _learned(session, tokenizer)


def _learned(session: Session, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A notice of examples with characters that are learned as the unknown token."""
    some = _spread(session.plain)
    lacking = [one for one in some if _lacks(tokenizer, one)]
    if not lacking:
        return []
    return [
        f"tasks.{', '.join(session.study.targets)}: {len(lacking)} of {len(some)} training "
        "examples hold characters that the tokenizer does not know, and which are learned as "
        f"{tokenizer.unk_token} (the first is {lacking[0].id})."
    ]


def _lacks(tokenizer: PreTrainedTokenizerBase, example: Example) -> bool:
    """Whether what a model reads and learns of an example, turn by turn, cannot be spelled."""
    if IDS in example.meta:  # a window of a text
        return tokenizer.unk_token_id in example.meta[IDS]
    turns = [turn.content for turn in example.messages]
    return any(_unknown(tokenizer, text[:READ]) for text in (*turns, example.target or ""))


def _unknown(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return bool(text) and text_ids(tokenizer, text).unknown > 0


def _spread(items: Sequence[Example]) -> Sequence[Example]:
    return items[:: max(1, len(items) // LOOKED)]

"""Resolves a model that was trained elsewhere, and checks that it goes with the base.

It may be a folder or hub id of whole weights, a PEFT adapter, a GGUF file, or an endpoint. What can
be told from names and small files is told before anything is loaded: an adapter that was trained on
another base gives figures that look like forgetting and are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from holdfast import models
from holdfast.config import NAME, ModelSpec
from holdfast.config.places import check_place
from holdfast.config.section import made_usable, unusable
from holdfast.endpoint import is_endpoint, parse_url
from holdfast.errors import ModelError, located
from holdfast.memory.model.reading import read_shape
from holdfast.models import ModelRef, gguf_record, peft_adapter
from holdfast.models.files import checkpoint_in
from holdfast.models.json_files import read_object
from holdfast.types import BASE, ChatSettings

Form = Literal["model", "adapter", "gguf", "endpoint", "answers"]
ELSEWHERE = ("endpoint", "answers")
"""Forms whose weights are not loaded here."""
OF_MODELS = ("config.json", peft_adapter.SETTINGS)
NUMBERED = re.compile(r"(checkpoint-|seed)\d+")
"""Parts of a path that say little without the part before them."""


@dataclass(frozen=True, slots=True)
class ExternalModel:
    """A model that was trained elsewhere.

    Attributes:
        name: for folders and reports.
        source: how its user names it: folder, hub id, file or address.
        form: what it is.
        ref: its weights.
        notes: what a reader of its figures must know.
    """

    name: str
    source: str
    form: Form
    ref: ModelRef
    notes: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """It in words."""
        return {
            "model": f"trained elsewhere: {self.source}",
            "adapter": f"trained elsewhere: adapter {self.source} on base",
            "gguf": f"trained elsewhere: {self.source}, its quantised weights expanded",
            "endpoint": f"trained elsewhere: behind {self.source}",
            "answers": f"answers from elsewhere: {self.source}",
        }[self.form]


def engine_of(ref: ModelRef, asked: str) -> str:
    """The engine that answers for a model: an endpoint's is always `remote`.

    Args:
        ref: the model.
        asked: the engine that the study names.
    """
    return "remote" if is_endpoint(ref.base) else asked


def has_shape(ref: ModelRef) -> bool:
    """Whether a model's sizes can be read without loading it, to spread it over GPUs.

    Of a family that only its own Python code knows they cannot.
    """
    if is_endpoint(ref.base) or not ref.trust_remote_code:
        return not is_endpoint(ref.base)
    try:
        return read_shape(ref.base, ref.revision).layers > 0
    except ModelError:
        return False


def find(
    source: str,
    base: ExternalModel | None = None,
    any_base: bool = False,
    trust_remote_code: bool = False,
) -> ExternalModel:
    """The model that somebody names; whether it has a chat template is left to whoever asks it.

    Args:
        source: ``[NAME=]`` a folder, hub id, ``FOLDER/FILE.gguf`` or endpoint; ``@REVISION`` behind
            a hub id.
        base: what an adapter goes on; None: what the adapter itself names.
        any_base: apply an adapter although it names another base.
        trust_remote_code: run the Python code that a whole model brings.

    Raises:
        ModelError: it cannot be used, is no model, or is the adapter of another base.
        StudyError: an address that names no model.
        MissingDependency: reading GGUF needs a package.
    """
    name, text = _named(source)
    if is_endpoint(text):
        return _endpoint(name, text)
    text, revision = _revision(text)
    folder = Path(text).expanduser()
    _no_other(folder, text)
    local = folder if folder.is_dir() else peft_adapter.from_hub(text, revision)
    if text != models.LAB and local is not None and peft_adapter.is_adapter(local):
        return _adapter(name, _with_revision(text, revision), local, base, any_base)
    spec = ModelSpec(id=text, revision=revision, trust_remote_code=trust_remote_code)
    ref = models.reference(spec, chats=False)
    if (made := gguf_record.of(ref.base)) is not None and ref.base != str(folder):
        short = name or _short(made.file.removesuffix(".gguf"))
        return ExternalModel(short, _with_revision(text, revision), "gguf", ref, (str(made),))
    return ExternalModel(name or _short(text), _with_revision(text, revision), "model", ref)


def identity(model: ExternalModel) -> dict[str, object]:
    """What makes this model this model; see `models.identity`.

    An adapter adds its own; see `peft_adapter.identity`.
    """
    ref = model.ref
    if model.form == "endpoint":
        chat = {} if ref.chat == ChatSettings() else {"chat": ref.chat}
        return {"endpoint": parse_url(ref.base).identity(), **chat}
    found = models.identity(ref)
    if ref.adapter is not None:
        found["adapter"] = peft_adapter.identity(Path(ref.adapter))
    return found


def answers(source: str) -> ExternalModel:
    """The unknown model whose answers a file holds, ``[NAME=]FILE``."""
    name, text = _named(source)
    short = _short(text.removesuffix(".jsonl"))
    return ExternalModel(name or short, text, "answers", ModelRef(text))


def is_quantised(model: ExternalModel) -> bool:
    """Whether a model's weights lie in few bits, or did; False where only the hub knows."""
    if (made := gguf_record.of(model.ref.base)) is not None:
        return made.kind not in gguf_record.FLOATS
    if model.ref.gguf is not None:
        return True
    config = Path(model.ref.base) / "config.json"
    if not config.is_file():
        return False
    return bool(read_object(config).get("quantization_config"))


def _named(source: str) -> tuple[str, str]:
    """``NAME=MODEL`` in its parts; the name is "" where there is none."""
    with located(source[:200]):
        check_place(source, "a model")
    name, equals, text = source.partition("=")
    if not equals or not re.match(NAME, name):
        return "", source
    if name.casefold() == BASE:
        raise ModelError(
            "'base' is what the first model is called", where=source, remedy="use another name"
        )
    if why := unusable(name):
        raise ModelError(
            f"the name {name[:60]!r}: {why}", where=text[:200], remedy="give it another: NAME=MODEL"
        )
    return name, text


def _revision(text: str) -> tuple[str, str | None]:
    if Path(text).expanduser().exists():
        return text, None
    head, at, revision = text.rpartition("@")
    return (head, revision) if at else (text, None)


def _with_revision(text: str, revision: str | None) -> str:
    return f"{text}@{revision}" if revision else text


def _short(text: str) -> str:
    """A name for folders out of a path or hub id; that of a checkpoint has its training in it."""
    parts = [part for part in re.split(r"[/\\]", text) if part not in ("", ".", "..", "~")]
    first = len(parts) - 1
    while first > 0 and NUMBERED.fullmatch(parts[first]):
        first -= 1
    return made_usable("-".join(parts[max(first, 0) :]))


def _no_other(folder: Path, text: str) -> None:
    """Refuse answers, and a folder of trainings, where a model is meant."""
    if folder.suffix == ".jsonl" and folder.is_file():
        raise ModelError("is a file of answers", where=text, remedy="add --replies")
    if not folder.is_dir() or any((folder / one).is_file() for one in OF_MODELS):
        return
    checkpoint = checkpoint_in(folder)
    if checkpoint is not None:
        raise ModelError(
            "is a folder of checkpoints, and no model itself",
            where=text,
            remedy=f"name one: {checkpoint}",
        )


def _endpoint(name: str, text: str) -> ExternalModel:
    server = parse_url(text)
    source = f"{server.url}#{server.model}"
    return ExternalModel(name or _short(server.model), source, "endpoint", ModelRef(text))


def _adapter(
    name: str, text: str, folder: Path, base: ExternalModel | None, any_base: bool
) -> ExternalModel:
    settings = peft_adapter.check(folder, text)
    trained_on, notes = str(settings.get("base_model_name_or_path") or ""), list[str]()
    if base is None:
        base = find(trained_on) if trained_on else None
    elif not trained_on:
        notes.append("its adapter does not say which base it was trained on")
    elif not peft_adapter.same_base(trained_on, base.ref.base):
        if not any_base:
            raise ModelError(
                f"is an adapter of {trained_on}, not of {base.source}",
                where=text,
                remedy="name that model as BASE, or add --any-base if both are the same weights",
            )
        notes.append(f"its adapter was trained on {trained_on}, and is applied to {base.source}")
    if base is None or base.form == "endpoint":
        raise ModelError(
            "an adapter needs the weights of its base", where=text, remedy="name a local base"
        )
    peft_adapter.check_vocabulary(folder, Path(base.ref.base), text)
    ref = replace(base.ref, adapter=str(folder), scale=1.0)
    return ExternalModel(name or _short(text), text, "adapter", ref, tuple(notes))

"""What a server is told beyond OpenAI's own protocol: further fields, and adapters to load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from holdfast.config import AnswerSpec, Sampling
from holdfast.data.thinking_marks import SWITCHES
from holdfast.endpoint import Endpoint, Server, is_endpoint, parse_url
from holdfast.errors import EndpointError, ModelError, StudyError, located
from holdfast.models import ModelRef, peft_adapter
from holdfast.models.peft_adapter import SETTINGS, WEIGHTS
from holdfast.runs import store
from holdfast.types import Example

REMOTE = "remote"
"""The engine that asks a server."""


def server_of(answer: AnswerSpec, under_test: Sequence[ModelRef]) -> Server | None:
    """The server that answers for models whose files are here; None: none is named.

    Raises:
        StudyError: none is named and one is needed; or its address is none.
    """
    if answer.server is not None:
        with located("answer.server"):
            return parse_url(answer.server)
    if answer.engine == REMOTE and any(not is_endpoint(ref.base) for ref in under_test):
        raise StudyError(
            "no server is named that answers for the model",
            where="answer.engine: remote",
            remedy="add `server: http://127.0.0.1:8000/v1#NAME`, where it is served",
        )
    return None


def told_beyond(sampling: Sampling, ref: ModelRef, where: str = "") -> dict[str, Any]:
    """What a question to a server holds, where it is asked for, beyond OpenAI's own fields.

    Variables of the template go as vLLM and SGLang take them; which of them switches thinking only
    the template knows, which ignores the others.

    Args:
        sampling: how it is asked.
        ref: the model, with how its template is used.
        where: the server, for messages; "": as the model's address says.

    Raises:
        ModelError: a template of the study's own, which no server takes.
    """
    chat = ref.chat
    if chat.template is not None:
        raise ModelError(
            "a server renders conversations by a template of its own, not by the study's",
            where=f"model.chat_template, for {where or parse_url(ref.base).where}",
            remedy="start the server with that template, and leave it out here",
        )
    found: dict[str, Any] = {}
    if sampling.temperature > 0:
        found |= {"top_k": sampling.top_k} if sampling.top_k else {}
        found |= {"min_p": sampling.min_p} if sampling.min_p else {}
    if sampling.repetition_penalty != 1:
        found["repetition_penalty"] = sampling.repetition_penalty
    switched = {} if chat.thinking is None else dict.fromkeys(SWITCHES, chat.thinking)
    if variables := {**switched, **chat.kwargs}:
        found["chat_template_kwargs"] = variables
    return found


def tools_of(example: Example) -> dict[str, Any]:
    """The functions that the model may call, where there are any."""
    return {"tools": list(example.tools)} if example.tools else {}


class ServedAdapters:
    """Has a server load adapters, each under a name that tells its content."""

    def __init__(self, base: Endpoint, slots: int = 1) -> None:
        """Take the server with the base; sends nothing.

        Args:
            base: asked for where no adapter is.
            slots: adapters that stay loaded; the one asked for longest ago makes room.
        """
        self._base, self._slots = base, slots
        self._open: dict[tuple[str, float], Endpoint] = {}
        self._scaled: dict[tuple[str, float], TemporaryDirectory[str]] = {}

    def of(self, adapter: str | None, scale: float = 1.0) -> Endpoint:
        """The endpoint that answers with a share of an adapter; None: without one.

        Raises:
            EndpointError: the server does not load it.
            ModelError: a share of it is no interpolation.
        """
        if adapter is None:
            return self._base
        folder = Path(adapter)
        wanted = str(folder), scale
        found = self._open.pop(wanted, None)
        while found is None and len(self._open) >= self._slots:
            self._drop(next(iter(self._open)))
        if found is None:
            name = f"holdfast-{store.fingerprint([peft_adapter.identity(folder), scale])[:16]}"
            with self._base.running() as running:
                running.load(name, folder if scale == 1 else self._share(folder, scale))
            served = {"model": name, "served_as": None}
            found = Endpoint(self._base.server.model_copy(update=served))
            found.spending, found.first_wait_s = self._base.spending, self._base.first_wait_s
        self._open[wanted] = found  # the last one asked for comes last
        return found

    def forget(self) -> None:
        """Take it that the server has none: it was started again."""
        self._open.clear()
        for one in self._scaled.values():
            one.cleanup()
        self._scaled.clear()

    def drop(self) -> None:
        """Have the server drop all adapters, if it still can."""
        for wanted in list(self._open):
            self._drop(wanted)
        self.forget()

    def _drop(self, wanted: tuple[str, float]) -> None:
        name = self._open.pop(wanted).server.model
        if all(one.server.model != name for one in self._open.values()):
            with suppress(EndpointError), self._base.running() as running:
                running.unload(name)
        if (share := self._scaled.pop(wanted, None)) is not None:
            share.cleanup()

    def _share(self, folder: Path, scale: float) -> Path:
        """A copy of an adapter with so much of its change; the weights themselves are linked."""
        settings = dict(peft_adapter.settings_of(folder))
        if settings.get("peft_type") != "LORA" or settings.get("use_dora"):
            raise ModelError(
                "only a share of LoRA's change can be applied",
                where=str(folder),
                remedy="use train.lora.variant lora or rslora, or leave `scale` out",
            )
        pattern = settings.get("alpha_pattern")
        if isinstance(pattern, dict):
            settings["alpha_pattern"] = {key: value * scale for key, value in pattern.items()}
        settings["lora_alpha"] = settings["lora_alpha"] * scale  # type: ignore[operator]
        if (old := self._scaled.pop((str(folder), scale), None)) is not None:
            old.cleanup()  # the server did not load it
        made = self._scaled[str(folder), scale] = TemporaryDirectory(prefix="holdfast-share-")
        share = Path(made.name)
        (share / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        (share / WEIGHTS).symlink_to((folder / WEIGHTS).resolve())
        return share

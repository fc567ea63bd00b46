"""What a server is asked and told beside answering: its models, its tokens, its adapters.

None of it costs anything. Servers differ: vLLM has all of it; llama.cpp tells tokens and takes no
adapter while it runs; of others only the list of models is expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from holdfast.endpoint.client import CONNECT_S, Connection
from holdfast.endpoint.faults import brief, own_words, parsed
from holdfast.endpoint.settings import Server
from holdfast.errors import EndpointError

Said = tuple[int, Mapping[str, object], str]
LOAD_S = 300.0
"""Longest wait for an adapter to be loaded."""
READS = ("messages", "tools", "chat_template_kwargs")
"""Fields of a question that a chat template reads."""
START = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, or let the models "
    "answer here: answer.engine: hf"
)


class Running:
    """A server that runs, over a connection that is open."""

    def __init__(self, connection: Connection, server: Server) -> None:
        """Take both; nothing is sent."""
        self._connection, self._server = connection, server

    def check_model(self) -> None:
        """Refuse a server that lists its models, and not the one that is asked for.

        Some servers answer by whatever model they have, under whatever name they are asked for. One
        that lists nothing, or whose names `served_as` speaks of, is taken at its word.

        Raises:
            EndpointError: naming what it serves.
        """
        names, server = self._names(), self._server
        if server.served_as or not names or {server.model, f"{server.model}:latest"} & set(names):
            return
        raise EndpointError(
            f"the server does not list a model {brief(server.model)!r}",
            fault="unknown",
            where=server.where,
            remedy=f"{self._connection.offers()}; if it knows yours by a name that it does not "
            f"list, say so: served_as: {json.dumps(server.model, ensure_ascii=False)}",
        )

    def _names(self) -> list[str]:
        status, data, _ = self._call("GET", "models", None, CONNECT_S)
        rows = data.get("data") if status == 200 else None
        rows = rows if isinstance(rows, list) else []
        return [
            one["id"] for one in rows if isinstance(one, dict) and isinstance(one.get("id"), str)
        ]

    def prompt_ids(self, body: Mapping[str, object]) -> list[int] | None:
        """The token ids that the server's model reads when it is asked `body`.

        As vLLM says it, or llama.cpp's server.

        Returns:
            None where the server does not tell.
        """
        read = {name: body[name] for name in READS if name in body}
        asked = {"model": body["model"], **read, "add_generation_prompt": True}
        found = _ids(self._call("POST", "/tokenize", asked, CONNECT_S))
        if found:
            return found
        status, data, _ = self._call("POST", "/apply-template", read, CONNECT_S)
        text = data.get("prompt") if status == 200 else None
        if not isinstance(text, str):
            return None
        asked = {"content": text, "add_special": True, "parse_special": True}
        return _ids(self._call("POST", "/tokenize", asked, CONNECT_S))

    def check_takes_adapters(self) -> None:
        """Refuse a server that cannot be given an adapter while it runs; gives it none.

        Raises:
            EndpointError: how to start it.
        """
        status, _, _ = self._call("POST", "load_lora_adapter", {}, CONNECT_S)
        if status in (404, 405, 501):
            self._no_adapters()

    def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter from a folder that it can read, under a name.

        One of that name that it has already is taken for the same: the name tells the content.

        Raises:
            EndpointError: it cannot, in its own words.
        """
        asked = {"lora_name": name, "lora_path": str(folder.resolve())}
        status, _, said = self._call("POST", "load_lora_adapter", asked, LOAD_S)
        if status == 200 or "already been loaded" in said:
            return
        if status in (404, 405, 501) and "adapter" not in said.lower():
            self._no_adapters()
        remedy = (
            "the server reads the folder itself: give it the same file system, or start it here"
        )
        if "rank" in said.lower():
            remedy = (
                "start the server with a larger --max-lora-rank, or train a smaller train.lora.r"
            )
        raise EndpointError(
            f"the server does not load the adapter {folder} ({status}): {said}",
            fault="refused",
            where=self._server.where,
            remedy=f"{remedy}; or answer.engine: hf",
        )

    def unload(self, name: str) -> None:
        """Have the server drop an adapter; that it is gone already is no fault."""
        self._call("POST", "unload_lora_adapter", {"lora_name": name}, CONNECT_S)

    def _no_adapters(self) -> None:
        raise EndpointError(
            "this server cannot be given an adapter while it runs",
            fault="refused",
            where=self._server.where,
            remedy=START,
        )

    def _call(self, method: str, path: str, body: object, seconds: float) -> Said:
        """Status, the JSON object that came, and the server's own words."""
        status, text = self._connection.call(method, path, body, seconds)
        try:
            data = parsed(text)
        except ValueError:
            data = None
        return status, data if isinstance(data, dict) else {}, own_words(text)


def _ids(found: Said) -> list[int] | None:
    status, data, _ = found
    ids = data.get("tokens") if status == 200 else None
    if not isinstance(ids, list) or not ids or not all(type(one) is int for one in ids):
        return None
    return ids

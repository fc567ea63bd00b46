"""Proves that a server's model reads the very prompts that the model here would read.

By the server's own tokens where it tells them (vLLM, llama.cpp); else by how many it counted with
an answer. Another model, template or date shows itself so before much is asked. Fine-tuned
weights under the tokenizer of their base do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.endpoint import Endpoint
from holdfast.endpoint.running import Running
from holdfast.engines.server_fields import told_beyond, tools_of
from holdfast.errors import EndpointError
from holdfast.models import ModelRef
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBED = 8
"""Prompts whose tokens are compared, spread over all."""
SHOWN = 12
REMEDY = (
    "have it serve the folder that `model` names, with that folder's chat template; or name in "
    "`model` what it serves"
)


class PromptProof:
    """Compares a server's prompts with those of a model whose tokenizer is here.

    Attributes:
        proved: whether the tokens of some prompts were compared, or the count of one.
    """

    def __init__(self, ref: ModelRef, where: str) -> None:
        """Take the model, and the server's name for messages; loads nothing yet."""
        self._ref, self._where, self.proved = ref, where, False
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def ids(self, example: Example) -> list[int]:
        """The token ids of the prompt, as the model here reads it."""
        return chat.asked_ids(self._loaded(), example)

    def check(
        self,
        running: Running,
        examples: Sequence[Example],
        bodies: Sequence[Mapping[str, object]],
    ) -> None:
        """Compare the tokens of some prompts, if the server tells them; costs nothing.

        Args:
            running: the server.
            examples: what is asked.
            bodies: the question that is sent for each.

        Raises:
            EndpointError: it reads another prompt.
        """
        stride = max(1, len(examples) // PROBED)
        for example, body in list(zip(examples, bodies, strict=True))[::stride][:PROBED]:
            there = running.prompt_ids(body)
            if there is None:
                return
            if there != (here := self.ids(example)):
                at = next(
                    (i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b),
                    min(len(here), len(there)),
                )
                raise self._another(
                    f"its prompt of {example.id!r} has {len(there)} tokens, here {len(here)}; from "
                    f"token {at} on it reads {self._text(there, at)}, here {self._text(here, at)}"
                )
            self.proved = True

    def check_count(self, example: Example, read: int) -> None:
        """Compare how long a server says that a prompt was; 0: it does not say.

        Raises:
            EndpointError: it read another prompt, or only a part of it.
        """
        if read and read != (here := len(self.ids(example))):
            raise self._another(
                f"it read {read} tokens as the prompt of {example.id!r}, which has {here} here"
            )
        self.proved = self.proved or bool(read)

    def _loaded(self) -> PreTrainedTokenizerBase:
        if self._tokenizer is None:
            self._tokenizer = models.load_tokenizer(self._ref, chats=False)
        return self._tokenizer

    def _text(self, ids: Sequence[int], at: int) -> str:
        found = self._loaded().decode(ids[at : at + SHOWN], skip_special_tokens=False)
        return repr(found) if found else "nothing"

    def _another(self, said: str) -> EndpointError:
        return EndpointError(
            f"does not serve {self._ref.base}, or renders conversations otherwise: {said}",
            fault="other",
            where=self._where,
            remedy=REMEDY,
        )


def check_served(
    endpoint: Endpoint, ref: ModelRef, examples: Sequence[Example], adapters: bool
) -> list[str]:
    """Refuse a server that could not do its part in a study, before anything is paid for.

    Args:
        endpoint: the server.
        ref: the model that it has to serve.
        examples: some of what will be asked.
        adapters: it will be given some.

    Returns:
        A notice where it does not answer yet.

    Raises:
        EndpointError: it serves another model, or takes no adapters.
    """
    proof = PromptProof(ref, endpoint.server.where)
    told = told_beyond(Sampling(), ref, endpoint.server.where)
    bodies = [endpoint.request(one.messages, 1, **told, **tools_of(one)) for one in examples]
    if why := endpoint.absent():
        return [f"{why}; it has to by the time the model is asked"]
    with endpoint.running() as running:
        running.check_model()
        proof.check(running, examples, bodies)
        if adapters:
            running.check_takes_adapters()
    return []

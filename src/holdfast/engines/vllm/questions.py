"""What vLLM is asked through ``/v1/completions``, and how its answers are read.

Prompts go as token ids and answers come as token ids, so that what is asked, where an answer ends
and how it reads is decided by the code that the local engine uses. Fields as vLLM 0.32 knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from holdfast.config import Sampling
from holdfast.engines.vllm.server import Died, Server
from holdfast.errors import EndpointError
from holdfast.progress import Progress

GONE_S = 5.0
"""How long a server that does not answer is given to end by itself."""
STILL_S = 3600.0
"""A server of which nothing comes for so long is ended."""
Choice = Mapping[str, Any]
"""One answer, as vLLM writes it."""
Done = Callable[[int, Choice], None]
WRITES = "its answers cannot be read as vLLM 0.32 writes them: {}"


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        ids: of the prompt.
        new: tokens of the answer, at most.
        fields: of the request, besides prompt, model and length.
    """

    ids: Sequence[int]
    new: int
    fields: Mapping[str, object]

    @property
    def tokens(self) -> int:
        """Of prompt and answer together, at most."""
        return len(self.ids) + self.new

    def body(self, model: str, room: int) -> dict[str, object]:
        """Of the request.

        Args:
            model: as the server calls it.
            room: tokens that prompt and answer may have together.
        """
        new = min(self.new, room - len(self.ids))
        return {"model": model, "prompt": list(self.ids), "max_tokens": new, **self.fields}


def drawn(
    ids: Sequence[int], sampling: Sampling, seed: int, stops: Sequence[int], words: Sequence[str]
) -> Question:
    """Ask for an answer.

    Args:
        ids: of the prompt.
        sampling: how; its stop strings are among `words`.
        seed: of the drawing.
        stops: token ids that end an answer; no others do.
        words: texts that end it.
    """
    fields: dict[str, object] = {
        "temperature": sampling.temperature,
        "seed": seed,
        "ignore_eos": True,  # the server's own notion of what ends a turn
        "stop_token_ids": list(stops),
        "skip_special_tokens": False,
        "return_token_ids": True,
    }
    if sampling.temperature > 0:
        fields |= {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p}
    if sampling.repetition_penalty != 1:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if words := [one for one in words if one]:
        fields |= {"stop": words, "include_stop_str_in_output": True}
    return Question(ids, sampling.max_new_tokens, fields)


def scored(ids: Sequence[int]) -> Question:
    """Ask for the log-probability and the rank of each token of a text."""
    return Question(ids, 1, {"temperature": 0.0, "prompt_logprobs": 0, "return_token_ids": True})


def chosen(ids: Sequence[int], first: Sequence[int]) -> Question:
    """Ask for the log-probabilities of some tokens after a prompt."""
    fields = {
        "temperature": 0.0,
        "logprobs": 0,
        "logprob_token_ids": list(first),
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }
    return Question(ids, 1, fields)


def read(question: Question, data: Mapping[str, Any], where: str) -> Choice:
    """The one choice in an answer.

    Args:
        question: that was put.
        data: what came.
        where: the server, for messages.

    Raises:
        EndpointError: it is not as vLLM writes it, broke off, or is to another prompt.
    """
    try:
        choice: Choice = data["choices"][0]
        counted, ended = data["usage"]["prompt_tokens"], choice["finish_reason"]
        tokens = list(map(int, choice["token_ids"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(where, repr(error)) from None
    if ended not in ("stop", "length") or not tokens:
        raise EndpointError(
            f"an answer broke off (finish_reason {ended!r})",
            fault="broken",
            where=where,
            remedy="look at the server's log",
        )
    if counted != len(question.ids):
        raise EndpointError(
            f"it read {counted} tokens of a prompt of {len(question.ids)}",
            fault="other",
            where=where,
            remedy="please report this; answer.engine: hf asks here",
        )
    return choice


def losses(choice: Choice, ids: Sequence[int], where: str) -> list[tuple[float, int]]:
    """Log-probability and rank (1: the likeliest) of each token of a text but the first.

    Raises:
        EndpointError: they are not there.
    """
    try:
        rows = choice["prompt_logprobs"][1:]
        found = [
            (float((one := row[str(token)])["logprob"]), int(one["rank"]))
            for row, token in zip(rows, ids[1:], strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(where, repr(error)) from None
    return found


def log_chances(choice: Choice, first: Sequence[int], where: str) -> list[float]:
    """Log-probability of each of some tokens after a prompt.

    Raises:
        EndpointError: they are not there.
    """
    try:
        row = choice["logprobs"]["top_logprobs"][0]
        return [float(row[f"token_id:{token}"]) for token in first]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(where, repr(error)) from None


def put_all(
    questions: Sequence[Question],
    left: dict[int, None],
    to: tuple[Server, str],
    progress: Progress,
    done: Done,
) -> None:
    """Put what is left, as many at a time as the server has rows; asked to stop, no more begin.

    Args:
        questions: all of them.
        left: places of those that are not answered; they leave it as they are.
        to: the server, and the name of the model there.
        progress: is told what is worth finishing.
        done: gets the place of a question and the choice that answers it, as each comes.

    Raises:
        Died: the server is gone, or does not know the model any more; what came still is taken.
        EndpointError: it refuses a question; the server is ended.
    """
    server, name = to
    room, rows, waiting = server.settings.tokens, server.settings.rows, iter(list(left))
    under_way: dict[Future[Choice], int] = {}

    def put(place: int) -> Choice:
        question = questions[place]
        return read(question, server.ask(question.body(name, room)), server.where)

    def take(one: Future[Choice]) -> None:
        place = under_way.pop(one)
        choice = one.result()
        del left[place]
        done(place, choice)

    with ThreadPoolExecutor(min(rows, len(left)), thread_name_prefix="vllm") as threads:
        try:
            while True:
                while len(under_way) < rows and not progress.stop.asked:
                    if (place := next(waiting, None)) is None:
                        break
                    under_way[threads.submit(put, place)] = place
                if not under_way:
                    return
                progress.stop.hold(f"the {len(under_way)} answers under way")
                came = wait(under_way, STILL_S, FIRST_COMPLETED).done
                if not came:
                    server.stop()
                    raise Died(f"no answer came within {STILL_S / 60:.0f} minutes")
                for one in came:
                    take(one)
        except Died as error:
            if not error.forgotten:
                server.ended(GONE_S)
            for one in list(under_way):
                with suppress(Died):
                    take(one)
            raise
        except BaseException:
            server.stop()  # which ends what waits for an answer
            raise


def _unreadable(where: str, why: str) -> EndpointError:
    return EndpointError(
        WRITES.format(why),
        fault="garbled",
        where=where,
        remedy="name a vLLM that was tried in hardware.vllm; or answer.engine: hf",
    )

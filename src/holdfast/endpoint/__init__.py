"""Asks a model that runs on a server.

Through ``POST {url}/chat/completions``, which vLLM, SGLang, Ollama, llama.cpp, ``transformers
serve`` and most vendors speak. Many questions are under way at a time; transient faults are tried
again with growing, random waits; every answer that says something is kept as it arrives. When
anything stops the work (a fault, a cap, Ctrl-C), nothing new is sent, what is under way is waited
for, because it is paid for, and running again asks only for what is missing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from holdfast.endpoint.answers import ANSWERS, Answer, AnswerCache
from holdfast.endpoint.client import FIRST_WAIT_S, Connection, require_packages
from holdfast.endpoint.faults import Stopped
from holdfast.endpoint.limits import RateLimiter, Spending
from holdfast.endpoint.running import Running
from holdfast.endpoint.settings import Price, Server, is_endpoint, parse_url
from holdfast.errors import EndpointError
from holdfast.progress import Progress, Silent
from holdfast.progress.stopping import AGAIN
from holdfast.runs import store
from holdfast.types import Message

__all__ = [
    "ANSWERS",
    "FIRST_WAIT_S",
    "Answer",
    "Endpoint",
    "Price",
    "Server",
    "is_endpoint",
    "parse_url",
]


class Endpoint:
    """One model of one server.

    Attributes:
        server: the settings.
        first_wait_s: longest wait after a first fault; each further one is twice as long.
        spending: what was sent and spent so far.
    """

    def __init__(self, server: Server, first_wait_s: float = FIRST_WAIT_S) -> None:
        """Take the settings; nothing is sent yet.

        Args:
            server: which, how fast, at what cost.
            first_wait_s: longest wait after a first fault; each further one is twice as long.
        """
        self.server, self.spending = server, Spending(server)
        self.first_wait_s = first_wait_s
        self._rate = RateLimiter(server.requests_per_minute)
        self._named: set[str] = set()
        self._looked = False

    def check(self) -> None:
        """Look for packages and key; sends nothing, as the server may be started later.

        Raises:
            UsageError: the key is not there.
            MissingDependency: a package.
        """
        require_packages()
        self.server.key()

    def absent(self) -> str:
        """Why nothing can be reached there, in words; "" where something answers."""
        with Connection(
            self.server, self.spending, self._rate, self.first_wait_s, Silent()
        ) as connection:
            return connection.absent()

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The server, to be asked and told what costs nothing.

        Raises:
            EndpointError: nothing answers there.
        """
        with Connection(
            self.server, self.spending, self._rate, self.first_wait_s, Silent()
        ) as connection:
            yield Running(connection, self.server)

    def request(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        **more: object,
    ) -> dict[str, object]:
        """The body of one question, by whose hash its answer is kept.

        Args:
            messages: the conversation.
            max_tokens: of the answer.
            temperature: 0 is greedy.
            top_p: sent with a temperature only.
            seed: of the drawing.
            **more: further fields; the settings' own `extra` wins over them.
        """
        turns = [_turn(one) for one in messages]
        body: dict[str, object] = {"model": self.server.model, "messages": turns}
        body |= {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        if temperature > 0:
            body["top_p"] = top_p
        body |= more | self.server.extra
        return {name: value for name, value in body.items() if value is not None}

    def ask(
        self,
        bodies: Sequence[Mapping[str, object]],
        folder: Path | None,
        progress: Progress,
        silent: bool = False,
    ) -> list[Answer]:
        """Put questions; equal ones once.

        What says nothing (`Answer.says_something`) and what bears a name that is not allowed any
        more is asked again by the next call.

        Args:
            bodies: what `request` made.
            folder: where answers are kept, unless the settings name another; None: nowhere.
            progress: is advanced by one for every body.
            silent: an answer without a word is one that is kept: of a model, not of a judge.

        Returns:
            One answer for each, in order.

        Raises:
            EndpointError: a fault that did not pass, or a cap; what was answered is kept.
        """

        def usable(answer: Answer) -> bool:
            return answer.says_something(silent) and self.server.may_be(answer.model)

        kept = AnswerCache(self.server.cache or folder, usable)
        marks = [store.fingerprint(body) for body in bodies]
        todo = {mark: body for mark, body in zip(marks, bodies, strict=True) if mark not in kept}
        progress.kept(sum(mark in kept for mark in marks))
        if todo:
            self._ask_all(todo, kept, progress, Counter(marks))
        answers = [kept[mark] for mark in marks]
        self._one_model(answers)
        return answers

    def _one_model(self, answers: Sequence[Answer]) -> None:
        """Refuse answers of which some are from another model than the others."""
        self._named |= {one.model for one in answers if one.finish in ("stop", "length")}
        if len(self._named) > 1:
            raise EndpointError(
                f"several models answered: {', '.join(sorted(self._named)[:5])}",
                fault="other",
                where=self.server.where,
                remedy="name one of them in `model`, or let served_as fit one only",
            )

    def _ask_all(
        self,
        todo: Mapping[str, Mapping[str, object]],
        kept: AnswerCache,
        progress: Progress,
        times: Mapping[str, int],
    ) -> None:
        if not self._looked:
            self._look()
        with Connection(
            self.server, self.spending, self._rate, self.first_wait_s, progress
        ) as connection:
            workers = min(self.server.concurrency, len(todo))
            pool = ThreadPoolExecutor(workers, thread_name_prefix="endpoint")
            under_way: dict[Future[Answer], str] = {}
            try:
                for mark, body in todo.items():
                    under_way[pool.submit(connection.send, body)] = mark
                for done in as_completed(under_way):
                    answer = done.result()
                    kept.add(under_way[done], answer)
                    progress.worked(answer.written)
                    progress.advance(times[under_way[done]])
            except BaseException as error:
                connection.stop()
                if isinstance(error, KeyboardInterrupt):
                    progress.say(f"stopping: waiting for the answers under way; {AGAIN}")
                try:
                    pool.shutdown(wait=True, cancel_futures=True)
                finally:  # a second Ctrl-C waits no longer, and what came is kept
                    for late, mark in under_way.items():
                        came = late.done() and not late.cancelled() and late.exception() is None
                        if came and mark not in kept:
                            kept.add(mark, late.result())
                if isinstance(error, Stopped):  # because another thread met the fault
                    error = _cause(under_way) or error
                if isinstance(error, EndpointError):
                    raise self._explained(error, connection, kept, todo) from None
                raise error
            pool.shutdown()

    def _look(self) -> None:
        """Refuse another model than said before anything is paid for; once, where one answers.

        Over a connection of its own: servers that have no list may drop it after their answer.
        """
        try:
            with self.running() as running:
                running.check_model()
        except EndpointError as error:
            if error.fault == "unknown":
                raise
        else:
            self._looked = True

    def _explained(
        self,
        error: EndpointError,
        connection: Connection,
        kept: AnswerCache,
        todo: Mapping[str, object],
    ) -> EndpointError:
        """The error with what the server does offer, and with what is kept."""
        remedy = error.remedy
        if error.fault == "unknown" and not remedy:
            remedy = connection.offers()
        came = sum(kept.is_saved(mark) for mark in todo)
        note = f"{came} of {len(todo)} answers came and are kept; run again for the others"
        return EndpointError(
            error.message, fault=error.fault, where=error.where, remedy=f"{remedy}\n  → {note}"
        )


def _turn(message: Message) -> dict[str, object]:
    """A turn as servers read it: the arguments of tool calls are the JSON of an object."""
    more = {key: value for key, value in message.extra.items() if key != "weight"}
    if calls := more.get("tool_calls"):
        more["tool_calls"] = [{**call, "function": _written(call["function"])} for call in calls]
    return {"role": message.role, "content": message.content, **more}


def _written(function: Mapping[str, object]) -> dict[str, object]:
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _cause(under_way: Iterable[Future[Answer]]) -> BaseException | None:
    """The fault that stopped all the others."""
    found = (one.exception() for one in under_way if not one.cancelled())
    return next((one for one in found if one and not isinstance(one, Stopped)), None)

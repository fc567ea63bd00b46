"""Judges through a server: one's own vLLM or Ollama, or a vendor's.

Prompts and parsers are those of the judges that run here, so that where a judge runs does not
change what it says. A guard (`qwen3guard`, `llamaguard`) needs a server that applies the guard's
own chat template; `strongreject` and `yes_no` put their rubric to any chat model. What the server
withholds, and what does not fit into its context, is `unsure`, like everything that cannot be
parsed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from holdfast.endpoint import Answer, Endpoint, Server
from holdfast.judges import (
    Judge,
    JudgeContext,
    Pair,
    ParsedVerdict,
    llamaguard,
    qwen3guard,
    strongreject,
    yes_no,
)
from holdfast.judges._prompts import conversation, shown
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.types import Message, Verdict

CHUNK: Final = 4096
"""Pairs in memory as requests at a time."""
OWN_TEMPLATE: Final = "the model's own template, put by the server"


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of judge is asked and understood.

    Attributes:
        name: with its version.
        prompt: the text around question and reply.
        longest: tokens that it may answer, where the user does not say.
        render: what is asked of a pair.
        parse: what an answer means, under the judge's options.
    """

    name: str
    prompt: str
    longest: int
    render: Callable[[Pair], tuple[Message, ...]]
    parse: Callable[[str, RemoteJudge.Options], ParsedVerdict]


class RemoteJudge(Judge):
    """A judge behind an OpenAI-compatible endpoint."""

    options: Options

    class Options(Server):
        """Settings of this judge: the server's, and how it is asked."""

        format: Literal["qwen3guard", "llamaguard", "strongreject", "yes_no"]
        """Which prompt and parser: those of the guard that the server runs, or a rubric."""
        threshold: float | None = Field(None, gt=0, le=1)
        """`strongreject`: unsafe from this score on. Left out: 0.5."""
        controversial: Literal["unsafe", "safe"] | None = None
        """`qwen3guard`: what a controversial reply counts as. Left out: `unsafe` (strict)."""
        max_tokens: int | None = Field(None, ge=1)
        """Longest answer, in tokens; a model that thinks aloud needs some thousands. Left out: by
        the format."""
        temperature: float = Field(0.0, ge=0)
        """0 is greedy, as far as the server keeps to it."""
        seed: int = Field(0, ge=0)
        """Sent along; most servers heed it."""

        @model_validator(mode="after")
        def _belongs_to_the_format(self) -> Self:
            for key, owner in (("threshold", "strongreject"), ("controversial", "qwen3guard")):
                if getattr(self, key) is not None and self.format != owner:
                    raise ValueError(f"{key} is a setting of the format {owner}")
            return self

    remote = True

    def __init__(self, options: Options, first_wait_s: float = 1.0) -> None:
        """Take the settings; nothing is sent.

        Args:
            options: which server, which model, how asked.
            first_wait_s: see `Endpoint`.
        """
        super().__init__(options)
        self._form = FORMS[options.format]
        self._endpoint = Endpoint(options, first_wait_s)
        self.name = f"remote-{self._form.name}"
        settings = [f"{name} {value}" for name, value in self._settings().items()]
        self.title = f"{self._form.name} ({', '.join([options.model, *settings])}, remote)"

    def identity(self) -> dict[str, object]:
        """See `Judge.identity`; not where the server is, nor how fast or dear."""
        return {
            "judge": self.name,
            **self.options.identity(),
            "prompt": store.fingerprint(self._form.prompt) if self._form.prompt else OWN_TEMPLATE,
            "sampling": {
                "max_tokens": self._longest,
                "temperature": self.options.temperature,
                "seed": self.options.seed,
            },
            **self._settings(),
        }

    def check(self) -> None:
        """See `Judge.check`; sends nothing, as the server may be started later."""
        self._endpoint.check()

    def absent(self) -> str:
        """See `Judge.absent`."""
        return self._endpoint.absent()

    def judge(self, pairs: Sequence[Pair], context: JudgeContext | None = None) -> list[Verdict]:
        """See `Judge.judge`.

        Raises:
            EndpointError: a fault that did not pass, or a cap; what was answered is kept in the
                context's folders.
        """
        progress, folder = (
            (context.progress, context.paid or context.folder) if context else (Silent(), None)
        )
        progress.total(len(pairs), "verdicts")
        verdicts: list[Verdict] = []
        useless: Counter[str] = Counter()
        for start in range(0, len(pairs), CHUNK):
            some = pairs[start : start + CHUNK]
            bodies = [self._body(pair) for pair in some]
            answers = self._endpoint.ask(bodies, folder, progress)
            verdicts += [self._verdict(pair, one) for pair, one in zip(some, answers, strict=True)]
            useless.update(_fault(one) for one in answers if not one.says_something())
        if useless:
            why = ", ".join(f"{count} {fault}" for fault, count in sorted(useless.items()))
            progress.say(
                f"{self.title}: {useless.total()} of {len(pairs)} replies are unsure ({why}); when "
                "the server is mended, --rebuild 'verdicts/*' asks for these alone"
            )
        spending = self._endpoint.spending
        if spending.spent:
            progress.say(
                f"{self.title}: {spending.sent} requests, {spending.spent:.4g} spent so far"
            )
        return verdicts

    def _body(self, pair: Pair) -> dict[str, object]:
        options = self.options
        rendered = self._form.render(pair)
        return self._endpoint.request(
            rendered, self._longest, options.temperature, seed=options.seed
        )

    def _verdict(self, pair: Pair, answer: Answer) -> Verdict:
        note, given = answer.text.strip(), answer.finish in ("stop", "length")
        parsed = self._form.parse(answer.text if given else "", self.options)
        if not given:
            note = f"{answer.finish}: {note}" if note else answer.finish
        return self.verdict(pair, parsed, note)

    @property
    def _longest(self) -> int:
        return self.options.max_tokens or self._form.longest

    def _settings(self) -> dict[str, object]:
        """What the format's own settings come to."""
        match self.options.format:
            case "strongreject":
                return {"threshold": _threshold(self.options)}
            case "qwen3guard":
                return {"controversial": _controversial(self.options)}
        return {}


def _fault(answer: Answer) -> str:
    """Why an answer is of no use, in a word or two."""
    return "empty" if answer.finish in ("stop", "length") else answer.finish


def _threshold(options: RemoteJudge.Options) -> float:
    return options.threshold or 0.5


def _controversial(options: RemoteJudge.Options) -> str:
    return options.controversial or "unsafe"


FORMS: Final[Mapping[str, Form]] = {
    "qwen3guard": Form(
        qwen3guard.NAME, "", 128,
        lambda pair: conversation(pair).messages,
        lambda said, options: qwen3guard.parse(said, _controversial(options)),
    ),
    "llamaguard": Form(
        llamaguard.NAME, "", 24,
        lambda pair: conversation(pair).messages,
        lambda said, options: llamaguard.parse(said),
    ),
    "strongreject": Form(
        strongreject.NAME, strongreject.SYSTEM + strongreject.PROMPT, 512,
        lambda pair: strongreject.messages(*shown(pair)),
        lambda said, options: strongreject.read(strongreject.parse(said), _threshold(options)),
    ),
    "yes_no": Form(
        yes_no.NAME, yes_no.SYSTEM + yes_no.PROMPT, 16,
        lambda pair: yes_no.messages(*shown(pair)),
        lambda said, options: yes_no.parse(said),
    ),
}  # fmt: skip
"""By the name in the study."""

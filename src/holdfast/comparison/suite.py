"""What a comparison asks where nobody says: what people fear to lose when a model is tuned.

Mathematics, knowledge, reading, following instructions, over-refusal, safety and a second language.
Every ability has sources, the best first: a benchmark's files in a local folder, the hub or
lm-evaluation-harness where they can be had, and else a small set that comes with Holdfast. What is
smaller than it might be, and what is not asked at all, is said.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast import tasks
from holdfast.comparison import contestants
from holdfast.comparison.request import SOURCE, Request
from holdfast.config import LAB, TaskSpec
from holdfast.endpoint import is_endpoint
from holdfast.errors import DataError, HoldfastError
from holdfast.memory.model import hub
from holdfast.runs import store
from holdfast.study.duration import stage_seconds
from holdfast.study.session import Session

FILE = "suite.json"
"""In the run folder: what was chosen, so that the same is asked when the comparison goes on."""
DATA = "data"
"""Where benchmarks' files are looked for in the working folder; `--data` names another place."""
ABILITIES = (
    "mathematics", "knowledge", "reading", "instructions", "overrefusal", "safety", "chinese",
)  # fmt: skip
TOKENS = {
    "mathematics": 320, "knowledge": 64, "reading": 48, "instructions": 160, "overrefusal": 96,
    "safety": 96, "chinese": 256,
}  # fmt: skip
"""Longest answers."""
LAB_TASKS = ("lab_math", "lab_refuse", "lab_help")
MOST, LEAST = 500, 8
"""Items of a task."""
SECONDS = {"gpu": 3600.0, "cpu": 900.0}
"""What the whole comparison may take."""
SAMPLES = (
    "The bundled samples are small, easy and not validated: they show a large loss, and no "
    "published figure belongs to them."
)
UNASKED = (
    "Not asked by the default suite: code, long texts, several turns, tools, thinking, other "
    "languages than English and Chinese; Holdfast brings no items for them (name tasks of your own "
    "with --tasks)."
)
OF_THE_LAB = (
    "The lab's model knows its own small world alone, so that its own three tasks are asked, and "
    "not knowledge, reading, instructions and a second language."
)
Keys = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Asked:
    """One task of the suite.

    Attributes:
        name: of its section: the ability.
        keys: of the section.
        source: where its items are from, in words.
    """

    name: str
    keys: Keys
    source: str


@dataclass(frozen=True, slots=True)
class Suite:
    """What is asked, and what a reader must know of it.

    Attributes:
        asked: the tasks.
        limit: items of each at most, where nobody says otherwise; None: all.
        notes: what is smaller than it might be, and what is not asked, and why.
        settings: of the comparison, beside the tasks' own.
    """

    asked: tuple[Asked, ...]
    limit: int | None
    notes: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def on(self, request: Request) -> Request:
        """The request with these tasks; what was set by hand wins."""
        few = {} if self.limit is None else {"limit": self.limit}
        own = [
            f"tasks.{one.name}.{key}={json.dumps(value)}"
            for one in self.asked
            for key, value in {**one.keys, **few}.items()
        ]
        settings = (*own, *self.settings, *request.settings)
        names = tuple(one.name for one in self.asked)
        return replace(request, tasks=names, settings=settings, data=None)

    def words(self) -> str:
        """What is asked, in a sentence."""
        return "Default suite: " + "; ".join(f"{one.name} ({one.source})" for one in self.asked)


def kept(folder: Path) -> Suite | None:
    """The suite that a comparison was begun with; None where there is none.

    Raises:
        DataError: it cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    value = store.read_json(file)
    try:
        asked = tuple(Asked(**one) for one in value["asked"])
        return Suite(asked, value["limit"], tuple(value["notes"]), tuple(value["settings"]))
    except (LookupError, TypeError) as error:
        raise DataError(
            "does not say what is asked", where=str(file), remedy="give another --name"
        ) from error


def keep(folder: Path, suite: Suite) -> None:
    """Write down what was chosen."""
    store.write_json(folder / FILE, asdict(suite))


def chosen(base: str, data: Path, device: str) -> Suite:
    """The best source of every ability that is at hand, not sized yet.

    Args:
        base: the model that comes first, as its user names it.
        data: folder where benchmarks' files may lie.
        device: ``gpu``, ``cpu`` or ``endpoint``.
    """
    settings = ("answer.repeats=1",) if device == "cpu" else ()
    if base == LAB:
        asked = tuple(Asked(name, {}, "the lab's own") for name in LAB_TASKS)
        return Suite(asked, None, (OF_THE_LAB,), settings)
    found, notes, lacked = list[Asked](), list[str](), list[str]()
    for ability in ABILITIES:
        one, lacking = _first(ability, data, device)
        found.append(one)
        lacked += [lacking] if lacking else []
    if lacked:
        notes.append(f"{SAMPLES} Better ones were not at hand: {'; '.join(lacked)}.")
    return Suite(tuple(found), None, (*notes, UNASKED), settings)


def _first(ability: str, data: Path, device: str) -> tuple[Asked, str]:
    """The first source that can be used, and why better ones could not."""
    lacking = []
    sampling = {"max_new_tokens": TOKENS[ability]}
    for source, keys in _sources(ability, data, device):
        if not isinstance(keys, Mapping):
            lacking.append(f"{source} ({keys})")
            continue
        whole = {**keys, "sampling": sampling} if keys.get("kind") != "harness" else keys
        try:
            made = tasks.build(ability, TaskSpec.model_validate(whole), SOURCE)
            made.examples("test")
        except HoldfastError as error:
            lacking.append(f"{source} ({error.message.splitlines()[0]})")
            continue
        return Asked(ability, whole, source), ""
    keys = {"kind": "sample", "ability": ability, "sampling": sampling}
    return Asked(ability, keys, "bundled sample"), "; ".join(lacking)


def _sources(ability: str, data: Path, device: str) -> Iterator[tuple[str, Keys | str]]:
    """What would be better than the bundled items: the keys of a section, or why there are none."""
    local: dict[str, tuple[str, Callable[[], Keys | str]]] = {
        "mathematics": ("GSM8K", lambda: _gsm8k(data)),
        "overrefusal": ("XSTest", lambda: _csv(data, "*xstest*.csv", kind="xstest", half="safe")),
        "safety": ("AILuminate", lambda: _csv(data, "*airr*.csv", kind="ailuminate")),
    }
    if ability in local:
        name, find = local[ability]
        yield name, find()
    harness = {
        "knowledge": "arc_challenge", "reading": "boolq", "instructions": "ifeval",
        "chinese": "belebele_zho_Hans",
    }  # fmt: skip
    if ability in harness:
        name = f"lm-evaluation-harness's {harness[ability]}"
        yield name, _harness(harness[ability], device)


def _gsm8k(data: Path) -> Keys | str:
    for folder in (data / "gsm8k", data):
        if (folder / "test.jsonl").is_file() and (folder / "train.jsonl").is_file():
            return {"kind": "gsm8k", "path": str(folder.absolute())}
    return {"kind": "gsm8k"} if not (why := _no_hub("datasets")) else f"not in {data}, and {why}"


def _csv(data: Path, pattern: str, **keys: object) -> Keys | str:
    found = sorted([*data.glob(pattern), *data.glob(f"*/{pattern}")])
    return {**keys, "path": str(found[0].absolute())} if found else f"no {pattern} in {data}"


def _harness(name: str, device: str) -> Keys | str:
    if device != "gpu":
        return "asked where models are loaded on a GPU"
    return _no_hub("lm_eval") or {"kind": "harness", "task": name}


def _no_hub(package: str) -> str:
    """Why nothing can be had from the hub or its cache; "" where it may be tried."""
    for one in (package, "huggingface_hub"):
        if importlib.util.find_spec(one) is None:
            return f"{one} is not installed"
    if not hub.asked_offline():
        hub.down()  # where it does not answer, its client looks into its cache alone from now on
    return ""


def expanded(
    request: Request, runs_dir: Path, plan: Callable[[Request], Session]
) -> tuple[Request, Suite]:
    """The request with the default suite, as large as the device allows.

    Args:
        request: that names no task.
        runs_dir: where the run folder is made; the suite of one that is there is asked again.
        plan: checks a request, which tells what it would take here.
    """
    first, tuned = contestants.models(request)
    name, base = request.name or contestants.run_name(first, list(tuned)), first.source
    if (found := kept(runs_dir / name)) is not None:
        return found.on(request), found
    data = Path(request.data or DATA).expanduser()
    session = plan(chosen(base, data, "cpu").on(replace(request, limit=LEAST)))
    device = "endpoint" if is_endpoint(session.plan.model.base) else "cpu"
    device = "gpu" if session.gpus else device
    found = chosen(base, data, device)
    if request.limit is None:
        session = plan(found.on(request))
        took = dict.fromkeys(session.plan.tasks, 0.0)
        for name, one in stage_seconds(session).items():
            if (task := name.rpartition("/")[2]) in took:
                took[task] += one.seconds
        items = {name: (task.items, took[name]) for name, task in session.plan.tasks.items()}
        found = sized(found, items, device)
    return found.on(request), found


def sized(suite: Suite, seconds: Mapping[str, tuple[int, float]], device: str) -> Suite:
    """The suite with as many items of each task as the device answers in the time there is.

    Args:
        suite: with all items.
        seconds: by task, its items and what all of them would take.
        device: ``gpu``, ``cpu`` or ``endpoint``.
    """
    allowed = SECONDS["cpu" if device == "cpu" else "gpu"]
    many = max(items for items, _ in seconds.values())
    limit = min(MOST, many)
    while limit > LEAST and _total(seconds.values(), limit) > allowed:
        limit -= 1 if limit <= 20 else 10
    limit, minutes = max(LEAST, limit), max(1, round(_total(seconds.values(), limit) / 60))
    left = {name: items for name, (items, _) in seconds.items() if items > limit}
    size = f"At most {limit:,} items of each task: about {minutes:,} min here ({device})"
    if left:
        size += "; there are more of " + ", ".join(f"{name} ({n:,})" for name, n in left.items())
        size += "; a GPU would be asked far more" if device == "cpu" else ""
    return replace(suite, limit=limit, notes=(f"{size}.", *suite.notes))


def _total(seconds: Collection[tuple[int, float]], limit: int) -> float:
    return sum(took * min(1.0, limit / items) for items, took in seconds)

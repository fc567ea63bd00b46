"""Kills a run just before every write, tears every file of a finished one, and compares the ends.

A small run is carried out in a forked process that dies (`os._exit`, no buffer flushed, nothing
cleaned up) just before its N-th open for writing, rename, unlink, truncate, mkdir, rmdir, chmod or
fsync within the run folder; then the same run is begun again and goes to its end. Readings and
costs (tokens generated and read, steps, arithmetic; not seconds) must be those of the run that
nobody interrupted. Then, for every file of a finished run: half of it, one bit flipped, deleted,
and `report`, the run begun again, and the run with its statistics made again give a typed error
with a remedy or the very same figures.

    python benchmarks/kills.py            # a study with training on random weights; minutes
    python benchmarks/kills.py --stages   # stages with a scripted engine, no torch; seconds
    python benchmarks/kills.py --every 7 --offset 3 --twice
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
KILLED, TYPED, BROKEN = 137, 3, 70
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
COSTS = ("examples", "steps", "supervised_tokens", "examples_seen", "flops", "tokens",
         "generated_tokens")  # fmt: skip
Run = Callable[[Path], None]
"""Carries a run out in a folder, or on."""
Figures = Callable[[Path], Mapping[str, object]]
"""What must come out of it whatever happens; `readings` and `costs`."""


def die_before(number: int, folder: Path) -> list[str]:
    """Let this process die just before its write number `number` below a folder; returns a log."""
    seen: list[str] = []

    def count(what: str) -> None:
        seen.append(what)
        if len(seen) == number:
            os._exit(KILLED)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = values
            writes = flags & WRITING if mode is None else set("wax+") & set(mode)
            if writes and isinstance(path, str | bytes) and os.fsdecode(path).startswith(here):
                count(f"open {os.fsdecode(path)}")
        elif event in WRITES:
            first = os.fsdecode(values[0]) if isinstance(values[0], str | bytes | Path) else ""
            if first.startswith(here) or not os.path.isabs(first):
                count(f"{event} {first}")

    here, fsync = str(folder), os.fsync

    def counted_fsync(handle: int) -> None:
        count("fsync")
        fsync(handle)

    os.fsync = counted_fsync
    sys.addaudithook(hook)
    return seen


def forked(work: Callable[[], object]) -> int:
    """The exit code of a child that does some work: 0, TYPED, KILLED, or BROKEN (a traceback)."""
    from holdfast.errors import HoldfastError

    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            work()
            code = 0
        except HoldfastError as error:
            code = TYPED if error.remedy else BROKEN
            if not error.remedy:
                print(f"no remedy: {error}", flush=True)
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def writes_of(run: Run, folder: Path) -> int:
    """How many writes an uninterrupted run makes; it is left in `folder`."""
    log = folder.with_suffix(".log")

    def work() -> None:
        seen = die_before(0, folder)
        run(folder)
        log.write_text(json.dumps(seen), encoding="utf-8")

    started = time.monotonic()
    if (code := forked(work)) != 0:
        sys.exit(f"the run that nobody interrupts ends with {code}")
    count = len(json.loads(log.read_text(encoding="utf-8")))
    print(f"{count} writes in {time.monotonic() - started:.1f} s, uninterrupted", flush=True)
    return count


def kill_everywhere(
    run: Run, figures: Figures, scratch: Path, every: int, offset: int, twice: bool
) -> Counter[str]:
    """Kill, go on, compare; returns how often which way it ended."""
    whole = scratch / "whole"
    count = writes_of(run, whole)
    wanted, found = figures(whole), Counter(writes=count)
    folder, chance = scratch / "killed", random.Random(1)
    for number in range(1 + offset, count + 1, every):
        shutil.rmtree(folder, ignore_errors=True)
        numbers = [number, chance.randrange(1, count)] if twice else [number]
        for one in numbers:
            code = forked(lambda one=one: (die_before(one, folder), run(folder)))
            found["killed"] += code == KILLED
        code = forked(lambda: run(folder))
        found["tried"] += 1
        if code != 0:
            found["not finished"] += 1
            print(f"write {number}: the run that goes on ends with {code}", flush=True)
            continue
        got = figures(folder)
        for what in ("readings", "costs"):
            same = got[what] == wanted[what]
            found[f"equal {what}"] += same
            if not same:
                print(f"write {number}: other {what}:\n  {wanted[what]}\n  {got[what]}", flush=True)
        left = [str(one) for one in folder.rglob("*") if one.name.endswith((".part", ".tmp"))]
        found["left over"] += len(left)
        if left:
            print(f"write {number}: left over {left}", flush=True)
    return found


def half(path: Path) -> None:
    """Keep the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 4
    path.write_bytes(data)


def told(folder: Path) -> object:
    """All that a finished run says."""
    return json.loads((folder / "stats" / "results.json").read_text(encoding="utf-8"))


def tear_everything(
    looks: Mapping[str, Run], whole: Path, scratch: Path, every: int
) -> Counter[str]:
    """Damage each file of a finished run in turn, look at the run, and compare."""
    wanted, found = told(whole), Counter[str]()
    names = sorted(str(one.relative_to(whole)) for one in whole.rglob("*") if one.is_file())
    names = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    for name in names[::every]:
        for way in (half, flip, Path.unlink):
            for what, look in looks.items():
                folder = scratch / "torn"
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(whole, folder)
                way(folder / name)
                code = forked(lambda look=look, folder=folder: look(folder))
                found["tried"] += 1
                if code == TYPED:
                    found["typed error"] += 1
                elif code == 0 and told(folder) == wanted:
                    found["same figures"] += 1
                else:
                    kind = "other figures" if code == 0 else "traceback"
                    found[kind] += 1
                    print(f"{kind}: {what} after {way.__name__} of {name}", flush=True)
    return found


def study_of_seconds(scratch: Path) -> tuple[Run, Figures, dict[str, Run]]:
    """A study with training, an arm that learns from its own answers, and judged refusals."""
    import warnings

    import torch
    import trl  # noqa: F401  # so that the forks need not
    from fixtures.study import write_study
    from fixtures.tiny_model import make_model

    from holdfast import study
    from holdfast.config import load
    from holdfast.engines import chunks
    from holdfast.progress import Silent
    from holdfast.report.run import render

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    make_model(scratch / "model")
    train = {
        "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 4, "checkpoints": 2,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False, "logging_steps": 3,
    }  # fmt: skip
    tasks = {
        "lab_math": {"role": "target", "items": 6, "train_items": 12}, "lab_refuse": {"items": 4},
    }  # fmt: skip
    arms = {"gold": {"data": [{"selfgen": {"samples": 2, "unsolved": "gold"}}]}}
    file = write_study(
        scratch, scratch / "model", seeds=[1], train=train, tasks=tasks, arms=arms,
        meters={"probes": 4},
    )  # fmt: skip
    loaded = load.load(file)
    chunks.in_chunks.__defaults__ = (chunks.REPLIES, 5)

    def run(folder: Path, rebuild: tuple[str, ...] = ()) -> None:
        study.run(loaded, folder, Silent(), str(file), rebuild=rebuild)

    def figures(folder: Path) -> dict[str, object]:
        results = json.loads((folder / "stats" / "results.json").read_text(encoding="utf-8"))
        return {
            "readings": {
                str(one.relative_to(folder)): one.read_text(encoding="utf-8")
                for one in sorted((folder / "readings").rglob("readings.jsonl"))
            },
            "costs": [{name: arm[name] for name in (*COSTS, "loss")} for arm in results["arms"]],
        }  # fmt: skip

    looks: dict[str, Run] = {
        "report": lambda folder: render(folder) and None,
        "run": run,
        "run --rebuild stats": lambda folder: run(folder, ("stats",)),
    }
    return run, figures, looks


def stages_of_moments(scratch: Path) -> tuple[Run, Figures, dict[str, Run]]:
    """Stages that ask a scripted engine in chunks, count, grade and sum up."""
    from holdfast.config import Sampling, Study
    from holdfast.engines import chunks, resumable
    from holdfast.engines.pool import EnginePool
    from holdfast.engines.scripted import ScriptedEngine
    from holdfast.progress import Progress, Silent
    from holdfast.runs import records, run_folder, stages, store
    from holdfast.runs.stages import Stage
    from holdfast.types import Example, Message, Reading, Reply

    study = Study.model_validate(
        {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}}
    )
    examples = [Example(f"q{n}", (Message("user", f"{n} + 1?"),), str(n + 1)) for n in range(7)]
    chunks.in_chunks.__defaults__ = (chunks.REPLIES, 3)

    class Counting(ScriptedEngine):
        def generate(self, asked: Any, *more: Any, **named: Any) -> list[list[Reply]]:
            found = super().generate(asked, *more, **named)
            self.usage.read += sum(len(one.question) for one in asked)
            self.usage.written += sum(reply.n_tokens for some in found for reply in some)
            return found

    def made(folder: Path) -> list[Stage]:
        pool = EnginePool(study)
        engine = Counting(lambda example, adapter, sample: f"{example.target} or so")

        def lend() -> ScriptedEngine:
            engine.usage = pool._usage
            return engine

        def ask(into: Path, progress: Progress) -> dict[str, object]:
            with pool.counted(into) as spent:
                found = resumable.ask(lend, examples, Sampling(), into, progress)
                lend().usage.read += 10 * len(found)  # such as scoring: done anew, counted once
            return {"spent": [spent.read, spent.written]}

        def grade(into: Path, progress: Progress) -> dict[str, object]:
            said = store.iterate_jsonl(folder / "shared" / "a" / chunks.REPLIES, Reply)
            rows = (Reading(r.example_id, 0, float(len(r.text) > 7), "correct") for r in said)
            store.write_jsonl(into / "readings.jsonl", rows)
            return {}

        def sums(into: Path, progress: Progress) -> dict[str, object]:
            rows = store.read_jsonl(folder / "readings" / "a" / "readings.jsonl", Reading)
            spent = records.summary(folder / "shared" / "a")["spent"]
            value = {"n": len(rows), "mean": sum(r.value or 0 for r in rows) / len(rows)}
            store.write_json(into / "results.json", {**value, "spent": spent})
            return {}

        return [
            Stage("shared/a", {"v": 1}, ask, (), True),
            Stage("readings/a", {}, grade, ("shared/a",)),
            Stage("stats", {}, sums, ("readings/a", "shared/a")),
        ]

    def run(folder: Path, rebuild: tuple[str, ...] = ()) -> None:
        run_folder.check_run(folder)
        plan = made(folder)
        stages.schedule(plan, folder, rebuild=rebuild)
        run_folder.open_run(folder)
        with run_folder.lock(folder):
            stages.forget(plan, folder, rebuild)
            stages.execute(stages.schedule(plan, folder), plan, folder, Silent())
        store.read_json(folder / "stats" / "results.json")

    def figures(folder: Path) -> dict[str, object]:
        results = json.loads((folder / "stats" / "results.json").read_text(encoding="utf-8"))
        return {"readings": [results["n"], results["mean"]], "costs": results["spent"]}

    def look(folder: Path) -> None:
        run_folder.check_run(folder, must_exist=True)
        store.read_json(folder / "stats" / "results.json")

    looks: dict[str, Run] = {
        "read": look,
        "run": run,
        "run --rebuild stats": lambda folder: run(folder, ("stats",)),
    }
    return run, figures, looks


def main() -> int:
    """Print both tables; 1 where anything came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", action="store_true", help="no torch: seconds")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th write")
    parser.add_argument("--offset", type=int, default=0, help="writes that are left out first")
    parser.add_argument("--twice", action="store_true", help="kill the second sitting, too")
    parser.add_argument("--files", type=int, default=1, help="tear every so many-th file; 0: none")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        make = stages_of_moments if given.stages else study_of_seconds
        run, figures, looks = make(scratch)
        run(scratch / "warm")  # all imports are made; the forks need not
        kills = kill_everywhere(run, figures, scratch, given.every, given.offset, given.twice)
        print(f"kills: {dict(kills)}", flush=True)
        torn = Counter[str]()
        if given.files:
            torn = tear_everything(looks, scratch / "whole", scratch, given.files)
            print(f"torn files: {dict(torn)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    wrong = torn["other figures"] + torn["traceback"] + kills["left over"]
    tried = kills["tried"]
    return int(bool(wrong) or not tried == kills["equal readings"] == kills["equal costs"])


if __name__ == "__main__":
    sys.exit(main())

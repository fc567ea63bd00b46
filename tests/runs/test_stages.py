"""Is finished work skipped, changed work refused, and broken work continued?"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import DriftError, EndpointError, Fault, HoldfastError, UsageError
from holdfast.progress import Progress, Silent
from holdfast.runs import stages, store
from holdfast.runs.stages import Stage


class Workshop:
    """Dummy stages that count their runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def stage(
        self,
        name: str,
        needs: tuple[str, ...] = (),
        identity: Mapping[str, Any] | None = None,
        work: Callable[[Path], None] = lambda folder: None,
        resumable: bool = False,
    ) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            self.ran.append(name)
            work(folder)
            store.write_text(folder / "out.txt", f"{name} {identity}")
            return {"ok": True}

        return Stage(name, identity or {}, run, needs, resumable)

    def go(self, plan: list[Stage], folder: Path, **options: Any) -> None:
        self.ran.clear()
        stages.execute(stages.schedule(plan, folder, **options), plan, folder, Silent())


def _chain(shop: Workshop, value: int = 1) -> list[Stage]:
    return [
        shop.stage("a", identity={"value": value}),
        shop.stage("b/x", ("a",)),
        shop.stage("b/y", ("a",)),
        shop.stage("c", ("b/x",)),
    ]


def test_finished_stages_are_skipped(tmp_path: Path) -> None:
    shop = Workshop()
    shop.go(_chain(shop), tmp_path)
    assert shop.ran == ["a", "b/x", "b/y", "c"]
    record = stages.read_record(tmp_path / "b" / "x")
    assert record is not None
    assert record["summary"] == {"ok": True}
    assert not list(tmp_path.rglob("*.tmp"))
    shop.go(_chain(shop), tmp_path)
    assert shop.ran == []


def test_a_changed_stage_stops_with_a_field_diff(tmp_path: Path) -> None:
    shop = Workshop()
    shop.go(_chain(shop), tmp_path)
    with pytest.raises(DriftError, match="value: 1 → 2") as caught:
        stages.schedule(_chain(shop, 2), tmp_path)
    assert "--rebuild 'a'" in str(caught.value)
    assert "b/x" not in str(caught.value), "what only follows from the change is not listed"
    shop.go(_chain(shop, 2), tmp_path, rebuild=["a"])
    assert shop.ran == ["a", "b/x", "b/y", "c"], "what needs it is made again too"
    assert "'value': 2" in (tmp_path / "a" / "out.txt").read_text()
    assert not list(tmp_path.rglob("*.old"))


def test_only_takes_its_needs_along(tmp_path: Path) -> None:
    shop = Workshop()
    shop.go(_chain(shop), tmp_path, only="c")
    assert shop.ran == ["a", "b/x", "c"]
    shop.go(_chain(shop), tmp_path)
    assert shop.ran == ["b/y"]


def test_rebuilding_the_same_runs_it_again(tmp_path: Path) -> None:
    shop = Workshop()
    shop.go(_chain(shop), tmp_path)
    shop.go(_chain(shop), tmp_path, rebuild=["b/*"])
    assert shop.ran == ["b/x", "b/y", "c"]


def test_a_glob_without_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stage matches 'z"):
        stages.schedule(_chain(Workshop()), tmp_path, only="z*")


def test_a_crash_keeps_what_was_finished(tmp_path: Path) -> None:
    shop = Workshop()

    def crash(folder: Path) -> None:
        store.write_text(folder / "half.txt", "half")
        raise RuntimeError("power cut")

    broken = [*_chain(shop)[:2], shop.stage("b/y", ("a",), work=crash)]
    with pytest.raises(RuntimeError):
        shop.go(broken, tmp_path)
    assert stages.read_record(tmp_path / "b" / "y") is None
    shop.go(_chain(shop), tmp_path)
    assert shop.ran == ["b/y", "c"]
    assert not (tmp_path / "b" / "y" / "half.txt").exists(), "leftovers are wiped"


def test_a_resumable_stage_finds_its_half_done_folder(tmp_path: Path) -> None:
    shop = Workshop()
    found: list[bool] = []

    def work(folder: Path) -> None:
        found.append((folder / "part").exists())
        store.write_text(folder / "part", "")
        if len(found) == 1:
            raise KeyboardInterrupt

    def plan(value: int) -> list[Stage]:
        return [shop.stage("a", identity={"v": value}, work=work, resumable=True)]

    with pytest.raises(KeyboardInterrupt):
        shop.go(plan(1), tmp_path)
    shop.go(plan(1), tmp_path)
    assert found == [False, True]
    with pytest.raises(KeyboardInterrupt):
        found.clear()
        shop.go(plan(2), tmp_path, rebuild=["a"])
    assert found == [False], "another identity starts afresh"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # tokenizers
        ValueError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_a_full_disk_is_explained(tmp_path: Path, error: Exception) -> None:
    shop = Workshop()

    def full(folder: Path) -> None:
        raise error

    with pytest.raises(HoldfastError, match="disk is full") as caught:
        shop.go([shop.stage("a", work=full)], tmp_path)
    assert "same command" in str(caught.value)


def test_needs_must_come_first() -> None:
    shop = Workshop()
    with pytest.raises(ValueError, match="do not come before"):
        stages.schedule([shop.stage("b", ("a",)), shop.stage("a")], Path("nowhere"))


def test_an_interrupted_rebuild_goes_on_where_it_was(tmp_path: Path) -> None:
    shop = Workshop()
    plan = _chain(shop)
    shop.go(plan, tmp_path)
    stages.forget(plan, tmp_path, ["a"])
    steps = stages.schedule(plan, tmp_path)
    stages.execute(steps[:1], plan, tmp_path, Silent())  # "a" is made again, then the power goes
    shop.go(plan, tmp_path)
    assert shop.ran == ["b/x", "b/y", "c"], "what read the old a is not taken for done"
    shop.go(plan, tmp_path)
    assert shop.ran == []


def test_forgetting_everything_converges(tmp_path: Path) -> None:
    shop = Workshop()
    plan = _chain(shop)
    shop.go(plan, tmp_path)
    stages.forget(plan, tmp_path, ["*"])
    shop.go(plan, tmp_path, only="a")
    shop.go(plan, tmp_path)
    assert shop.ran == ["b/x", "b/y", "c"]


def test_killed_between_record_and_rename(tmp_path: Path) -> None:
    shop = Workshop()
    plan = [shop.stage("a")]
    shop.go(plan, tmp_path)
    (tmp_path / "a").rename(tmp_path / "a.tmp")
    needs: dict[str, str] = {}
    claim = {"fingerprint": stages.schedule(plan, tmp_path)[0].fingerprint, "needs": needs}
    store.write_json(tmp_path / "a.tmp" / "claim.json", claim)
    shop.go(plan, tmp_path)
    assert shop.ran == [], "finished work is adopted"
    assert stages.read_record(tmp_path / "a") is not None


def test_a_full_disk_in_torchs_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop()

    def full(folder: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    usage = stages.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("holdfast.runs.stages.shutil.disk_usage", lambda _: usage)
    with pytest.raises(HoldfastError, match="disk is full"):
        shop.go([shop.stage("a", work=full)], tmp_path)


class Server:
    """Is there or not, as its two lists say, one entry for each time that it is looked at."""

    def __init__(self, absent: list[str], faults: list[Fault | None]) -> None:
        self._absent, self._faults = absent, faults

    def absent(self) -> str:
        return self._absent.pop(0) if self._absent else ""

    def answer(self, folder: Path) -> None:
        if self._faults and (fault := self._faults.pop(0)):
            raise EndpointError("it broke", fault=fault)


def _judged(shop: Workshop, server: Server) -> list[Stage]:
    """Two models are asked, and each is judged at once by a server."""

    def judged(name: str, read: str) -> Stage:
        made = shop.stage(f"verdicts/{name}", (read,), work=server.answer)
        return replace(made, absent=server.absent)

    def graded(name: str) -> list[Stage]:
        said, judgement = f"replies/{name}", f"verdicts/{name}"
        return [
            shop.stage(said),
            judged(name, said),
            shop.stage(f"readings/{name}", (judgement,)),
        ]

    return [*graded("a"), *graded("b")]


INTERLEAVED = ["replies/a", "verdicts/a", "readings/a", "replies/b", "verdicts/b", "readings/b"]
LATE = ["replies/a", "replies/b", "verdicts/a", "readings/a", "verdicts/b", "readings/b"]


@pytest.mark.parametrize(
    ("absent", "faults", "ran", "said"),
    [
        ([], [], INTERLEAVED, ""),
        (["not up"] * 2, [], LATE, "verdicts/a: not up; it is put off until all else is done"),
        (["not up"], [], [*INTERLEAVED[:1], *INTERLEAVED[3:], *INTERLEAVED[1:3]], "not up"),
        ([], ["slow"], ["replies/a", "verdicts/a", *LATE[1:]], "verdicts/a: it broke; it is put"),
    ],
    ids=["there", "not yet", "there later", "fails in the middle"],
)
def test_what_a_server_is_needed_for_is_put_off_while_it_is_away(
    tmp_path: Path, absent: list[str], faults: list[Fault | None], ran: list[str], said: str
) -> None:
    shop, told = Workshop(), Told()
    plan = _judged(shop, Server(absent, faults))
    stages.execute(stages.schedule(plan, tmp_path), plan, tmp_path, told)
    assert shop.ran == ran
    assert said in " ".join(told.lines) and len(told.lines) == bool(said), "said once"
    assert told.left == {*INTERLEAVED}, "each was left once, when it was finished"
    assert all(step.done for step in stages.schedule(plan, tmp_path))


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left: set[str] = set()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def leave(self, stage: str) -> None:
        assert stage not in self.left
        self.left.add(stage)


def test_a_server_that_stays_away_ends_the_run_when_all_else_is_done(tmp_path: Path) -> None:
    shop = Workshop()
    plan = _judged(shop, Server(["not up"] * 2, ["down"]))
    with pytest.raises(EndpointError, match="it broke"):
        shop.go(plan, tmp_path)
    assert shop.ran == ["replies/a", "replies/b", "verdicts/a"]


@pytest.mark.parametrize("fault", ["key", "unknown", "other"])
def test_what_no_waiting_mends_is_told_at_once(tmp_path: Path, fault: Fault) -> None:
    shop = Workshop()
    with pytest.raises(EndpointError, match="it broke"):
        shop.go(_judged(shop, Server([], [fault])), tmp_path)
    assert shop.ran == ["replies/a", "verdicts/a"]

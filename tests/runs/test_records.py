"""Is a finished stage whose files are not those that it wrote noticed, and never read as it is?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import Sampling, Study
from holdfast.engines import chunks, resumable
from holdfast.engines.pool import EnginePool
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import Damaged, DataError, DriftError, HoldfastError, ModelError
from holdfast.progress import Progress, Silent
from holdfast.runs import plan, records, run_folder, stages, store, temporary
from holdfast.runs.stages import Stage
from holdfast.types import Example, Message, ModelRef, Reading, Reply

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _make(folder: Path, progress: Progress) -> None:
    rows = [Reading(f"q{n}", 0, float(n % 2), "correct") for n in range(12)]
    store.write_jsonl(folder / "readings.jsonl", rows)
    store.write_text(folder / "checkpoint-5" / "weights.bin", "x" * 100)


PLAN = [Stage("readings/a", {"v": 1}, lambda f, p: _make(f, p)), Stage("b", {}, lambda f, p: None)]


def _run(folder: Path, rebuild: tuple[str, ...] = (), made: list[Stage] | None = None) -> None:
    made = PLAN if made is None else made
    run_folder.check_run(folder)
    stages.schedule(made, folder, rebuild=rebuild)
    run_folder.open_run(folder)
    with run_folder.lock(folder):
        stages.forget(made, folder, rebuild)
        stages.execute(stages.schedule(made, folder), made, folder, Silent())


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _at_a_line_end(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:6]), "utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_half, "bytes instead of"),
        (_at_a_line_end, "bytes instead of"),
        (Path.unlink, "is missing"),
        (lambda path: path.with_name("more.jsonl").write_text("{}"), "is not of this stage"),
    ],
)
def test_other_files_than_were_written_stop_the_run(
    tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    _run(tmp_path)
    damage(tmp_path / "readings" / "a" / "readings.jsonl")
    with pytest.raises(Damaged, match=said) as caught:
        _run(tmp_path)
    assert "--rebuild 'readings/a'" in caught.value.remedy
    assert caught.value.exit_code == 3, "nothing has begun"
    _run(tmp_path, ("readings/a",))
    assert len(store.read_jsonl(tmp_path / "readings/a/readings.jsonl", Reading)) == 12


@pytest.mark.parametrize("damage", [_flip, _at_a_line_end, Path.unlink])
def test_a_changed_file_is_not_read(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    _run(tmp_path)
    file = tmp_path / "readings" / "a" / "readings.jsonl"
    assert len(store.read_jsonl(file, Reading)) == 12
    damage(file)
    with pytest.raises(Damaged, match=r"readings\.jsonl") as caught:
        store.read_jsonl(file, Reading)
    assert caught.value.remedy == "run again with --rebuild 'readings/a'"


def test_an_added_file_is_not_read(tmp_path: Path) -> None:
    _run(tmp_path)
    store.write_json(tmp_path / "b" / "notes.json", [])
    with pytest.raises(Damaged, match="not of this stage"):
        store.read_json(tmp_path / "b" / "notes.json")
    (tmp_path / "b" / "notes.json").rename(tmp_path / "b" / ".DS_Store")
    _run(tmp_path)


def test_weights_are_compared_and_may_be_deleted_as_a_whole(tmp_path: Path) -> None:
    _run(tmp_path)
    weights = tmp_path / "readings" / "a" / "checkpoint-5"
    records.check_folder(weights)
    _flip(weights / "weights.bin")
    _run(tmp_path)  # all sizes are right, and nobody asks for it
    with pytest.raises(Damaged, match=r"weights\.bin: was changed"):
        records.check_folder(weights)
    temporary.remove_tree(weights)
    _run(tmp_path)  # a limit on checkpoints deletes them
    weights.mkdir()
    with pytest.raises(Damaged, match="is missing"):
        records.check_folder(weights)


def test_files_of_others_are_nobodys_stage(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("my own records")
    (tmp_path / "rows.jsonl").write_text('{"question": "1?"}\n')
    assert [row for _, row in store.read_objects(tmp_path / "rows.jsonl")] == [{"question": "1?"}]


BROKEN = [
    b"", b"{", b"[1]", b"null", b"{}", b"\xff\xfe", b'{"a": ' + b"[" * 100_000,
    b'{"seconds": 1' + b"0" * 5000 + b"}", b'{"fingerprint": "\\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_torn_record_is_named_and_rebuilt(tmp_path: Path, content: bytes) -> None:
    _run(tmp_path)
    (tmp_path / "b" / "record.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"b/record\.json") as caught:
        _run(tmp_path)
    assert "--rebuild 'b'" in caught.value.remedy
    _run(tmp_path, ("b",))
    assert records.finished(tmp_path / "b")["name"] == "b"


def test_one_changed_digit_of_a_record_is_noticed(tmp_path: Path) -> None:
    _run(tmp_path)
    file = tmp_path / "b" / "record.json"
    file.write_text(file.read_text("utf-8").replace('"sittings": 1', '"sittings": 2'), "utf-8")
    with pytest.raises(Damaged, match="was changed"):
        records.read(tmp_path / "b")


def test_records_of_older_versions_are_read_with_a_notice(tmp_path: Path) -> None:
    _run(tmp_path)
    steps = stages.schedule(PLAN, tmp_path)
    assert stages.unchecked(steps) == []
    file = tmp_path / "readings" / "a" / "record.json"
    old = json.loads(file.read_text("utf-8"))
    for name in ("files", "sittings", "seal"):
        del old[name]
    file.write_text(json.dumps(old, indent=1), "utf-8")
    _flip(tmp_path / "readings" / "a" / "readings.jsonl")
    steps = stages.schedule(PLAN, tmp_path)
    assert all(step.done for step in steps)
    (said,) = stages.unchecked(steps)
    assert "1 finished stages are not checked" in said
    assert "readings/a" in said


def test_a_torn_claim_is_named_and_rebuilt(tmp_path: Path) -> None:
    made = [Stage("b", {}, lambda folder, progress: None, (), True)]
    work = tmp_path / "b.tmp"
    work.mkdir()
    (work / "claim.json").write_text("[1]")
    with pytest.raises(Damaged, match=r"claim\.json: is not a JSON object") as caught:
        stages.execute(stages.schedule(made, tmp_path), made, tmp_path, Silent())
    assert "--rebuild 'b'" in caught.value.remedy
    assert caught.value.exit_code == 1, "the run has begun"
    stages.forget(made, tmp_path, ["b"])
    stages.execute(stages.schedule(made, tmp_path), made, tmp_path, Silent())
    assert not work.exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b"[" * 100_000])
def test_torn_markers_and_plans_are_named(tmp_path: Path, content: bytes) -> None:
    run_folder.open_run(tmp_path)
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"plan\.json") as caught:
        plan.read_plan(tmp_path)
    assert caught.value.remedy == plan.RUN_AGAIN
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"run\.json") as caught:
        run_folder.check_run(tmp_path)
    assert '{"format": 2}' in caught.value.remedy
    (tmp_path / "run.json").write_text('{"format": 2}')
    run_folder.check_run(tmp_path)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from([*records.NEEDED, "files", "made", "seal", "format"]) | st.text(), inner
    ),
    max_leaves=12,
)  # fmt: skip
CONTENT = ANY.map(lambda value: json.dumps(value).encode()) | st.binary()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    _run(folder)
    run = Study.model_validate(
        {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}}
    )
    pool = EnginePool(run)
    found = plan.Plan(run, folder, ModelRef("lab"), 1, (1,), 1, pool.nf4, {}, {}, tuple(
        stage.planned for stage in PLAN
    ))  # fmt: skip
    plan.write_plan(found)
    return folder


HALF_DONE = [Stage("c", {}, lambda folder, progress: None, (), True)]


@given(
    st.sampled_from(["run.json", "plan.json", "b/record.json", "readings/a/record.json",
                     "readings/a/readings.jsonl", "claims/c.tmp/claim.json"]),
    CONTENT,
)  # fmt: skip
def test_whatever_stands_in_a_record_is_a_typed_error_or_works(
    whole: Path, name: str, content: bytes
) -> None:
    file = whole / name
    before = file.read_bytes() if file.is_file() else b""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        _looked_at(whole, name)
    except HoldfastError as error:
        assert error.remedy
    finally:
        shutil.rmtree(whole / "claims", ignore_errors=True)
        if before:
            file.write_bytes(before)


def _looked_at(folder: Path, name: str) -> None:
    if name.startswith("claims"):
        made = stages.schedule(HALF_DONE, folder / "claims")
        return stages.execute(made, HALF_DONE, folder / "claims", Silent())
    run_folder.check_run(folder, must_exist=True)
    if name == "plan.json":
        assert plan.read_plan(folder).stages
    assert len(stages.schedule(PLAN, folder)) == len(PLAN)
    rows = store.read_jsonl(folder / "readings" / "a" / "readings.jsonl", Reading)
    assert len(rows) == 12, "never fewer"
    return None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"sample": 0, "value": 1.0, "outcome": "c"}', "has no 'example_id'"),
        ("[1]", "is no object"),
        (
            '{"example_id": 7, "sample": 0, "value": 1.0, "outcome": "c"}',
            "example_id cannot be int",
        ),
        ('{"example_id": "a", "sample": 0, "value": "1", "outcome": "c"}', "value cannot be str"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: str, said: str) -> None:
    good = '{"example_id": "a", "sample": 0, "value": null, "outcome": "unsure"}'
    (tmp_path / "r.jsonl").write_text(f"{good}\n{row}\n")
    with pytest.raises(DataError, match=said) as caught:
        store.read_jsonl(tmp_path / "r.jsonl", Reading)
    assert caught.value.where.endswith("r.jsonl:2")
    assert caught.value.remedy


def test_lines_that_are_added_survive_a_torn_end(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert store.read_lines(file) == []
    store.append_line(file, {"step": 1, "said": "\u2028"})
    with file.open("a") as opened:
        opened.write('{"step": 2, "sa')
    assert store.read_lines(file) == [{"step": 1, "said": "\u2028"}]


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_new_files_have_the_mode_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        store.write_text(tmp_path / "new", "x")
        assert (tmp_path / "new").stat().st_mode & 0o777 == mode
        os.chmod(tmp_path / "new", 0o640)
        store.write_text(tmp_path / "new", "y")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640, "it was somebody's decision"
    finally:
        os.umask(before)


def test_what_killed_processes_left_is_cleared_and_a_live_ones_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / "a" / f".x.json.{gone.pid}-0123abcd.part"
    live = tmp_path / "a" / f".x.json.{os.getppid()}-0123abcd.part"
    mine = tmp_path / "a" / ".settings"
    for path in (dead, live, mine):
        store.write_text(path, "half")
    folder = tmp_path / f".checkpoint-5.{gone.pid}-0123abcd.part"
    store.write_text(folder / "half", "")
    with run_folder.lock(tmp_path):
        assert not dead.exists()
        assert not folder.exists()
        assert live.exists()
        assert mine.exists()


def test_what_fails_when_a_run_has_begun_is_no_wrong_usage(tmp_path: Path) -> None:
    def load(folder: Path, progress: Progress) -> None:
        raise ModelError("has no weights", remedy="download them")

    made = [Stage("a", {}, load)]
    with pytest.raises(ModelError) as caught:
        stages.execute(stages.schedule(made, tmp_path), made, tmp_path, Silent())
    assert caught.value.exit_code == 1
    assert ModelError("x").exit_code == DriftError("x").exit_code == 3


class Power:
    """Goes off after so many answers."""

    def __init__(self, answers: int) -> None:
        self.left = answers


def _answered(folder: Path, power: Power, clock: list[float]) -> dict[str, object]:
    """Ask seven questions in chunks of two and count."""
    pool = EnginePool(
        Study.model_validate(
            {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}}
        )
    )

    class Engine(ScriptedEngine):
        def generate(self, asked, *more, **named):  # type: ignore[no-untyped-def]
            power.left -= len(asked)
            if power.left < 0:
                raise KeyboardInterrupt
            clock[0] += 5.0
            self.usage.read += 10 * len(asked)
            self.usage.written += len(asked)
            return super().generate(asked, *more, **named)

    engine = Engine(lambda example, adapter, sample: example.id)

    def lend() -> Engine:
        engine.usage = pool._usage
        return engine

    examples = [Example(f"q{n}", (Message("user", "?"),)) for n in range(7)]

    def work(into: Path, progress: Progress) -> dict[str, object]:
        with pool.counted(into) as spent:
            resumable.ask(lend, examples, Sampling(), into, progress)
            lend().usage.read += 1000
        return {"spent": [spent.read, spent.written]}

    made = [Stage("shared/a", {}, work, (), True)]
    stages.execute(stages.schedule(made, folder), made, folder, Silent())
    return records.finished(folder / "shared" / "a")


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(chunks.in_chunks, "__defaults__", (chunks.REPLIES, 2))
    monkeypatch.setattr("holdfast.progress.time.monotonic", lambda: clock[0])
    return clock


def test_costs_are_the_same_however_often_it_was_interrupted(
    tmp_path: Path, chunks_of_two: list[float]
) -> None:
    once = _answered(tmp_path / "once", Power(7), chunks_of_two)
    assert once["summary"] == {"spent": [1070, 7]}
    assert (once["seconds"], once["sittings"]) == (20.0, 1)
    for answers in (5, 2):
        with pytest.raises(KeyboardInterrupt):
            _answered(tmp_path / "often", Power(answers), chunks_of_two)
        chunks_of_two[0] += 1000.0  # a night
    often = _answered(tmp_path / "often", Power(7), chunks_of_two)
    assert often["summary"] == once["summary"]
    assert (often["seconds"], often["sittings"]) == (20.0, 3)
    assert often["files"] == once["files"]


@pytest.mark.parametrize("damage", [_half, _flip, _at_a_line_end])
def test_a_damaged_chunk_is_asked_for_again(
    tmp_path: Path, chunks_of_two: list[float], damage: Callable[[Path], object]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _answered(tmp_path, Power(5), chunks_of_two)
    part = tmp_path / "shared" / "a.tmp" / "parts" / "replies.jsonl.00001"
    if damage is _at_a_line_end:  # the row, without what seals it
        part.write_text(part.read_text("utf-8").splitlines(keepends=True)[0], "utf-8")
    else:
        damage(part)
    found = _answered(tmp_path, Power(7), chunks_of_two)
    assert found["summary"] == {"spent": [1070, 7]}
    replies = store.read_jsonl(tmp_path / "shared" / "a" / "replies.jsonl", Reply)
    assert [one.text for one in replies] == [f"q{n}" for n in range(7)]


def test_killed_at_some_writes_and_torn_in_some_files_the_ends_are_the_same() -> None:
    """`make test-all` and the script by itself try all of them."""
    line = [
        sys.executable,
        str(BENCHMARKS / "kills.py"),
        "--stages",
        "--every",
        "6",
        "--files",
        "4",
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'tried': 15, 'equal readings': 15, 'equal costs': 15" in done.stdout
    assert "typed error" in done.stdout


@pytest.mark.slow
def test_killed_at_every_write_and_torn_in_every_file_the_ends_are_the_same() -> None:
    line = [sys.executable, str(BENCHMARKS / "kills.py"), "--stages", "--twice"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_results_without_a_record_are_refused(tmp_path: Path) -> None:
    from holdfast.report.run import read_results
    from holdfast.runs import run_folder

    run_folder.open_run(tmp_path)
    store.write_json(tmp_path / "stats" / "results.json", {"study": "somebody's"})
    with pytest.raises(Damaged, match="is not finished"):
        read_results(tmp_path)


def test_readings_outside_of_0_and_1_are_refused(tmp_path: Path) -> None:
    from holdfast.grading.grade import READINGS, read_readings
    from holdfast.types import Reading

    for value in (2.5, -1e308, float("nan")):
        rows = [Reading("a", 0, 1.0, "correct"), Reading("b", 0, value, "wrong")]
        store.write_jsonl(tmp_path / READINGS, rows)
        with pytest.raises(DataError, match="neither null nor") as caught:
            read_readings(tmp_path)
        assert caught.value.where.endswith(f"{READINGS}:2")
        assert "--rebuild" in caught.value.remedy

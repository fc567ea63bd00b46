"""Is what was answered before an interruption kept, and given to nothing else?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Sampling
from holdfast.engines.hf import HFEngine
from holdfast.engines.kept import NAME, KeptAnswers
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs.stages import PARTS
from holdfast.types import Example, Message


def test_a_torn_or_altered_line_is_passed_over(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path)
    for mark, ids in (("a", [1, 2]), ("b", [3])):
        kept.add(mark, ids)
    path = tmp_path / PARTS / NAME
    path.write_text(path.read_text("utf-8") + '\n{"of": "c", "ids": [4', "utf-8")
    KeptAnswers(tmp_path).add("d", [5])
    path.write_text(path.read_text("utf-8").replace("[3]", "[7]"), "utf-8")
    again = KeptAnswers(tmp_path)
    assert [again.find(one) for one in "abcd"] == [[1, 2], None, None, [5]]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    KeptAnswers(tmp_path / "gone").add("a", [1])
    KeptAnswers(None).add("a", [1])
    assert not list(tmp_path.iterdir())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("unsuited", ["", "for the test"])
def test_an_interrupted_chunk_goes_on_where_it_was(
    tiny_model: Path, tmp_path: Path, unsuited: str
) -> None:
    asked = [Example(f"q{n}", (Message("user", "a b " * n),)) for n in (1, 7, 3, 5, 2, 6)]
    chosen = Sampling(max_new_tokens=9, temperature=1.0, samples=2)
    with HFEngine(ModelRef(str(tiny_model)), "cpu", batch_size=2) as one:
        wanted = one.generate(asked, chosen, None, Silent())
        one._unsuited, one.answer_folder = unsuited, tmp_path
        written = one.usage.written
        asked_for: list[int] = []
        inner = one._decoded

        def watched(model: Any, rows: Any, *more: Any, stop: int) -> Any:
            asked_for.append(len(rows))
            for n, found in enumerate(inner(model, rows, *more)):
                if n == stop:
                    raise Stopped
                yield found

        one._decoded = lambda *given: watched(*given, stop=5)  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            one.generate(asked, chosen, None, Silent())
        one.usage.written = 0
        one._decoded = lambda *given: watched(*given, stop=99)  # type: ignore[method-assign]
        assert one.generate(asked, chosen, None, Silent()) == wanted
        assert asked_for == [12, 7], "five were there"
        assert one.usage.written == written, "and cost the same as if nothing had happened"
        other = chosen.model_copy(update={"seed": 1})
        assert one.generate(asked, other, None, Silent()) != wanted and asked_for[-1] == 12

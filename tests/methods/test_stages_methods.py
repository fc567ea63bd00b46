"""Do the remedies that work across stages do what their papers say?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.methods import PLAIN, apply, build, setting

from holdfast.config import LoraSpec, TrainSpec
from holdfast.config.successive import grown
from holdfast.errors import StudyError
from holdfast.methods import REPLAY
from holdfast.models import weight_delta
from holdfast.types import Example, Message


def _earlier(name: str, count: int) -> list[Example]:
    return [
        Example(f"{name}-{n}", (Message("user", f"{name} {n}?"),), f"{n}", name)
        for n in range(count)
    ]


def test_earlier_stages_are_replayed_alike(tmp_path: Path) -> None:
    """Ten own examples, a share of 0.5: ten earlier ones, five of each stage."""
    method = build("replay_earlier", share=0.5)
    given = replace(setting({}), earlier=(_earlier("math", 40), _earlier("code", 8)))
    examples, notes = apply(method, given, tmp_path)
    assert examples[: len(PLAIN)] == PLAIN
    added = examples[len(PLAIN) :]
    assert Counter(one.source for one in added) == {"replayed: math": 5, "replayed: code": 5}
    assert all(one.meta["kind"] == REPLAY for one in added)
    assert len({one.id for one in examples}) == len(examples)
    assert notes == ["10 examples of 2 earlier stages replayed, from 48"]
    again, _ = apply(method, given, tmp_path)
    assert again == examples


@pytest.mark.parametrize("first", [False, True])
def test_what_is_mixed_in_later_leaves_every_share_as_it_was_asked(
    tmp_path: Path, first: bool
) -> None:
    """A tenth, two tenths and 45 hundredths of all; in the first stage nothing is earlier."""
    file = tmp_path / "old.jsonl"
    rows = [{"prompt": f"old {n}?", "completion": "No."} for n in range(99)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    old = {"source": "file", "path": str(file)}
    made = [
        build("replay", share=0.1, **old),
        build("replay_earlier", share=0.2),
        build("replay", share=0.45, **old),
    ]
    for place, one in enumerate(made):
        one.later = made[place + 1 :]
    own = _earlier("own", 100)
    given = replace(setting({}), earlier=() if first else (_earlier("math", 40),))
    examples, counts = own, [len(own)]
    for one in made:
        examples, _ = one.apply(examples, given, {})
        counts.append(len(examples) - sum(counts))
    shares = [count / len(examples) for count in counts]
    wanted = [0.45, 0.1, 0.0, 0.45] if first else [0.25, 0.1, 0.2, 0.45]
    assert shares == pytest.approx(wanted, abs=0.01)


def test_a_small_pool_is_the_same_in_every_later_stage(tmp_path: Path) -> None:
    method = build("replay_earlier", share=0.5, pool=3)
    first, second = _earlier("math", 40), _earlier("code", 40)
    asked = []
    for earlier in ((first,), (first, second)):
        examples, notes = apply(method, replace(setting({}), earlier=earlier), tmp_path)
        added = [one for one in examples if one.source == "replayed: math"]
        asked.append({one.messages for one in added})
    assert len(asked[0]) == 3 and asked[0] == asked[1]
    assert notes[-1].endswith("(some are repeated)")


def test_the_first_stage_has_nothing_to_replay(tmp_path: Path) -> None:
    examples, notes = apply(build("replay_earlier"), replace(setting({}), earlier=()), tmp_path)
    assert examples == PLAIN and "nothing to replay" in notes[0]


def test_the_overlap_is_the_sum_of_absolute_products() -> None:
    """Against loops over rows; the gradient is the sign's, and none reaches earlier rows."""
    import torch

    from holdfast.methods.orthogonal import overlap

    torch.manual_seed(0)
    a = torch.randn(5, 7, requires_grad=True)
    found = overlap(a, 2)
    rows = a.detach().tolist()
    wanted = sum(
        abs(sum(x * y for x, y in zip(rows[i], rows[j], strict=True)))
        for i in range(2) for j in range(2, 5)
    )  # fmt: skip
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-5)
    found.backward()
    assert a.grad is not None and not a.grad[:2].any()
    for j in range(2, 5):
        signs = [float(torch.sign(a[i].detach() @ a[j].detach())) for i in range(2)]
        slope = sum(sign * a[i].detach() for i, sign in enumerate(signs))
        assert torch.allclose(a.grad[j], slope)


def test_what_earlier_stages_learned_stays_and_rows_turn_away(tiny_model: Path) -> None:
    """Wider adapters begin with the earlier ones, which no step moves; new rows turn away."""
    import torch
    from transformers import AutoModelForCausalLM

    from holdfast.train.adapters import adapt
    from holdfast.train.going_on import go_on

    spec = TrainSpec(lora=LoraSpec(r=4, alpha=8, dropout=0.0, target_modules=("q_proj", "v_proj")))

    def adapted(wide: int):  # type: ignore[no-untyped-def]
        torch.manual_seed(wide)
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        return adapt(model, grown(spec, wide))

    first = adapted(1)
    for _, a, b, _ in weight_delta.low_rank(first):
        torch.nn.init.normal_(b, std=0.1)
        torch.nn.init.normal_(a, std=0.1)
    folder = tiny_model.parent / "first-stage"
    first.save_pretrained(folder)
    second = adapted(2)
    go_on(second, folder)
    ids = torch.arange(2, 12).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(first(input_ids=ids).logits, second(input_ids=ids).logits, atol=1e-5)
    before = {
        name: (a.detach().clone(), b.detach().clone())
        for name, a, b, _ in weight_delta.low_rank(second)
    }
    term = build("orthogonal", "loss", weight=1.0).term()
    assert term.penalty is not None
    trained = [one for one in second.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.02, weight_decay=0.0)
    start = float(term.penalty(second).detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = second(input_ids=ids, labels=ids).loss + term.penalty(second)
        loss.backward()
        optimiser.step()
    assert 0 < float(term.penalty(second).detach()) < 0.3 * start
    for name, a, b, scale in weight_delta.low_rank(second):
        assert torch.equal(a[:4], before[name][0][:4]) and torch.equal(
            b[:, :4], before[name][1][:, :4]
        )
        assert not torch.equal(b[:, 4:], before[name][1][:, 4:])
        assert scale == 2.0
    assert float(term.penalty(first).detach()) == 0.0  # the first stage has nothing before it


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_decay": 0.1}, "weight decay would shrink"),
        ({"optim": "galore_adamw"}, "may move weights"),
        ({"method": "full"}, "all weights would be shared"),
        ({"lora": {"variant": "dora"}}, "dora would be shared"),
        ({"lora": {"rank_pattern": {"q_proj": 2}}}, "rank_pattern would be shared"),
    ],
)
def test_what_would_move_earlier_adapters_is_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        build("orthogonal", "loss").check_training(TrainSpec.model_validate(settings))

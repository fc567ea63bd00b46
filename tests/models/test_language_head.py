"""The head on a CPU: the log-probabilities, entropies and gradients of TRL's tiled one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl.trainer import utils

from holdfast.models import cpu_head
from holdfast.models.cpu_head import FEWEST_WORDS, on_cpu
from holdfast.models.language_head import watched


def model(words: int = FEWEST_WORDS, **more: Any) -> Any:
    """A decoder of one layer under TRL's head, all of it trained but the head."""
    from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

    torch.manual_seed(5)
    kind = Gemma2Config if "final_logit_softcapping" in more else LlamaConfig
    made = AutoModelForCausalLM.from_config(kind(
        vocab_size=words, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, initializer_range=0.3,
        tie_word_embeddings=False, **more,
    ), attn_implementation="eager")  # fmt: skip
    made.get_output_embeddings().weight.requires_grad_(False)
    utils.add_fused_lm_head(made, outputs=("log_probs", "entropy", "is_top1"))
    return made


IDS = torch.arange(60).view(3, 20)
LABELS = IDS.where(torch.arange(20) > 11, -100)


def scored(made: Any, labels: Any = LABELS) -> tuple[Any, dict[str, Any]]:
    """What the head says, and the gradients of a weighed sum of it."""
    made.zero_grad()
    found = made(input_ids=IDS, labels=labels, fused_lm_head=True)
    weights = torch.linspace(0.5, 2, found.log_probs.numel()).view_as(found.log_probs)
    (found.log_probs * weights).sum().backward()
    every = made.named_parameters()
    return found, {name: one.grad.clone() for name, one in every if one.grad is not None}


def assert_same(made: Any, labels: Any = LABELS) -> None:
    """Check that nothing differs beyond rounding, and that positions without loss are nought."""
    wanted, theirs = scored(made, labels)
    with on_cpu(made):
        found, ours = scored(made, labels)
    for name in ("log_probs", "entropy"):
        one, other = getattr(found, name), getattr(wanted, name)
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)
        assert not one[labels[:, 1:] == -100].any()
    assert torch.equal(found.is_top1, wanted.is_top1)
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        torch.testing.assert_close(ours[name], one, rtol=1e-4, atol=1e-5)


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each call of the faster function projects."""
    real, seen = cpu_head._function(), []

    class Counting:
        @staticmethod
        def apply(hidden: Any, *given: Any) -> Any:
            seen.append(len(hidden))
            return real.apply(hidden, *given)

    monkeypatch.setattr(cpu_head, "_function", lambda: Counting)
    return seen


@pytest.mark.parametrize("tile", [1 << 25, 5 * FEWEST_WORDS])
def test_only_positions_with_a_loss_are_projected_and_the_same_is_found(
    projected: list[int], monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(cpu_head, "TILE", tile)
    assert_same(model())
    assert projected == [int((LABELS[:, 1:] != -100).sum())] == [24]


def test_a_likeliest_target_is_seen() -> None:
    made = model()
    with torch.no_grad():
        best = made(input_ids=IDS).logits.argmax(-1)
    labels = torch.cat([IDS[:, :1], best[:, :-1]], 1)
    with on_cpu(made):
        found, _ = scored(made, labels)
    assert bool(found.is_top1.all())


def test_a_batch_without_any_loss_is_nought(projected: list[int]) -> None:
    assert_same(model(), torch.full_like(IDS, -100))
    assert projected == [0]


def test_what_it_is_not_made_for_goes_through_trls_own(projected: list[int]) -> None:
    trained = model()
    trained.get_output_embeddings().weight.requires_grad_(True)
    assert_same(trained)
    assert_same(model(final_logit_softcapping=3.0))
    with torch.no_grad(), on_cpu(made := model()):
        found = made(input_ids=IDS, labels=LABELS, fused_lm_head=True)
    torch.testing.assert_close(found.log_probs, scored(made)[0].log_probs.detach())
    assert projected == []


def test_a_small_vocabulary_is_left_alone_and_all_is_put_back(projected: list[int]) -> None:
    before = utils._ChunkedLogProbFunction, utils._use_triton
    with on_cpu(small := model(FEWEST_WORDS - 1)):
        scored(small)
        assert (utils._ChunkedLogProbFunction, utils._use_triton) == before
    with pytest.raises(ZeroDivisionError), on_cpu(model()):
        raise ZeroDivisionError
    assert (utils._ChunkedLogProbFunction, utils._use_triton) == before
    assert projected == []


def test_the_largest_logits_are_watched_through_it(projected: list[int]) -> None:
    made = model()
    with on_cpu(made), watched(3) as tops:
        scored(made)
    mask = LABELS[:, 1:] != -100
    wanted = made(input_ids=IDS).logits[:, :-1][mask].topk(3).values
    torch.testing.assert_close(tops[0], wanted.detach(), rtol=1e-4, atol=1e-4)
    assert projected == [24]

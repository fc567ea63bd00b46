"""Dropout and adapters on a CPU: the same distribution and arithmetic as torch's and PEFT's."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch

from holdfast.models.cpu_training import GENERATOR, dropped, mask_generator, quicken


def llama(width: int = 512, **more: Any) -> Any:
    """A decoder of one layer, wide enough to be quickened."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=97, hidden_size=width, intermediate_size=640, num_hidden_layers=1,
        num_attention_heads=8, num_key_value_heads=2, **more,
    ))  # fmt: skip


def adapted(p: float, quick: bool, width: int = 512, **more: Any) -> Any:
    """The same with LoRA whose second halves are not nought."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", **more}
    model = peft.get_peft_model(
        llama(width), peft.LoraConfig(lora_dropout=p, task_type="CAUSAL_LM", **settings)
    )
    torch.manual_seed(6)
    for name, values in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.05)
    if quick:
        quicken(model)
    return model.train()


IDS = torch.arange(24).view(2, 12) % 97


def gradients(model: Any) -> dict[str, Any]:
    """Of everything that is trained, after one backward pass."""
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("p", [0.05, 0.3, 0.6])
def test_every_element_is_dropped_independently_with_this_probability(p: float) -> None:
    torch.manual_seed(1)
    count, masks = 400, 1500
    drawn = torch.zeros(masks, count)
    for mask in drawn:
        mask[dropped(count, p).long()] = 1
    each = (p * (1 - p)) ** 0.5
    assert abs(float(drawn.mean()) - p) < 4.5 * each / (count * masks) ** 0.5
    # Chi-square over places: its mean is `count`, its deviation sqrt(2 count).
    squares = ((drawn.sum(0) - masks * p) ** 2 / (masks * p * (1 - p))).sum()
    assert abs(float(squares) - count) < 4.5 * (2 * count) ** 0.5
    per_mask = ((drawn.sum(1) - count * p) ** 2 / (count * p * (1 - p))).sum()
    assert abs(float(per_mask) - masks) < 4.5 * (2 * masks) ** 0.5, "counts are binomial"
    for far in (1, 2, 64):  # neighbours in a mask, and the same place of the next mask
        both = ((drawn[:, far:] - p) * (drawn[:, :-far] - p)).mean()
        assert abs(float(both)) < 4.5 * each**2 / (masks * (count - far)) ** 0.5
    both = ((drawn[1:] - p) * (drawn[:-1] - p)).mean()
    assert abs(float(both)) < 4.5 * each**2 / ((masks - 1) * count) ** 0.5


def test_a_mask_takes_one_number_of_torchs_generator_and_follows_from_its_state() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = dropped(5000, 0.1)
    after = torch.get_rng_state()
    assert not torch.equal(first[:50], dropped(5000, 0.1)[:50])
    torch.set_rng_state(state)
    assert torch.equal(dropped(5000, 0.1), first)
    torch.set_rng_state(state)
    torch.empty((), dtype=torch.int64).random_()
    assert torch.equal(torch.get_rng_state(), after)


def test_the_module_scales_what_stays_and_lets_nothing_back_through_what_does_not() -> None:
    model = llama()
    model.extra = torch.nn.Dropout(0.25)
    quicken(model)
    assert mask_generator(model) == {"dropout_masks": GENERATOR}
    given = torch.full((100, 512), 3.0, requires_grad=True)
    found = model.extra(given)
    found.sum().backward()
    gone = found == 0
    assert 0.24 < float(gone.float().mean()) < 0.26
    assert torch.equal(found[~gone].unique(), torch.tensor([4.0]))
    assert torch.equal(given.grad == 0, gone)
    assert given.grad[~gone].unique().item() == pytest.approx(4 / 3)
    assert torch.equal(model.extra.eval()(given), given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_dropout_a_layer_is_pefts(dtype: Any) -> None:
    own, theirs = (adapted(0.0, quick) for quick in (True, False))
    for model in (own, theirs):
        for values in model.parameters():
            values.data = values if values.requires_grad else values.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found, wanted = gradients(own), gradients(theirs)
    assert found.keys() == wanted.keys() and len(found) == 14
    for name, one in wanted.items():
        gap = float((found[name] - one).norm() / one.norm())
        assert gap < (2e-6 if dtype == torch.float32 else 0.03), name
        assert found[name].dtype == torch.float32


def test_with_dropout_a_layer_is_pefts_under_the_same_mask() -> None:
    model = adapted(0.3, True)
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(3, 7, 640, requires_grad=True)
    state = torch.get_rng_state()
    found = layer(x)
    up = torch.randn_like(found)
    found.backward(up)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    got = (found.detach(), x.grad.clone(), a.grad.clone(), b.grad.clone())
    torch.set_rng_state(state)
    mask = torch.ones(x.numel())
    mask[dropped(x.numel(), 0.3).long()] = 0
    x.grad = a.grad = b.grad = None
    thinned = x * mask.view_as(x) / 0.7
    wanted = layer.base_layer(x) + 3 * (thinned @ a.t() @ b.t())
    wanted.backward(up)
    for one, other in zip(got, (wanted, x.grad, a.grad, b.grad), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=2e-4, atol=2e-5)


def test_recomputed_activations_see_the_same_masks() -> None:
    model = adapted(0.2, True)
    found = []
    for recompute in (False, True):
        if recompute:
            model.enable_input_require_grads()
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(9)
        found.append(gradients(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert mask_generator(model) == {"dropout_masks": GENERATOR}


def test_switched_off_or_answering_it_is_the_base() -> None:
    model, base = adapted(0.2, True), llama()
    wanted = base(input_ids=IDS).logits
    with model.disable_adapter():
        assert torch.equal(model(input_ids=IDS).logits, wanted)
    plain = adapted(0.2, False).eval()
    assert torch.equal(model.eval()(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_what_is_not_plain_lora_goes_through_peft() -> None:
    own, theirs = (adapted(0.0, quick, use_dora=True) for quick in (True, False))
    found, wanted = gradients(own), gradients(theirs)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    model = adapted(0.2, True, use_dora=True)
    assert mask_generator(model) == {"dropout_masks": GENERATOR}
    assert all(bool(one.isfinite().all()) for one in gradients(model).values())


def test_a_narrow_model_is_left_as_it_is() -> None:
    model = adapted(0.2, True, width=128)
    torch.manual_seed(2)
    found = gradients(model)
    plain = adapted(0.2, False, width=128)
    torch.manual_seed(2)
    wanted = gradients(plain)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert mask_generator(model) == {}

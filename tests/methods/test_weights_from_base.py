"""Are weights made with the base's help as was published, held against numpy of our own?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.methods import PLAIN, setting

from holdfast.errors import DataError, LeakError, ModelError, StudyError
from holdfast.methods import Making, build
from holdfast.methods import fapm as pruning
from holdfast.methods import safelora as projecting
from holdfast.models import lora_files
from holdfast.models.stored_tensors import StoredTensors, check_readable
from holdfast.types import Example, Message, ModelRef

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "m",
          "target_modules": ["q"], "task_type": "CAUSAL_LM"}  # fmt: skip


def _tensor(value: Any) -> Any:
    import torch

    return torch.tensor(np.asarray(value), dtype=torch.float32)


def _model(folder: Path, **tensors: Any) -> Path:
    """A folder with nothing of a model but its tensors, `__` for a dot in their names."""
    from safetensors.torch import save_file

    folder.mkdir()
    named = {name.replace("__", "."): _tensor(one).contiguous() for name, one in tensors.items()}
    save_file(named, folder / "model.safetensors")
    return folder


def _adapter(folder: Path, changes: dict[str, tuple[Any, Any]], **config: Any) -> Path:
    """An adapter on disk with A and B as they are given."""
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {}
    for name, (a, b) in changes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = _tensor(a).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = _tensor(b).contiguous()
    save_file(tensors, folder / lora_files.WEIGHTS)
    (folder / lora_files.CONFIG).write_text(json.dumps(CONFIG | config))
    return folder


def _dense(folder: Path) -> dict[str, Any]:
    return {name: (b @ a).numpy() for name, (a, b) in lora_files.read(folder)[1].items()}


def _weights(name: str, **options: Any) -> Any:
    return build(name, options, "study", "arms.a.weights")


def _scored(change: Any, weight: Any, density: float) -> Any:
    """FAPM entry by entry: the highest scores stay, and those of weights of zero never do."""
    rows = [
        (-np.inf if w == 0 else abs(d) - np.abs(weight).mean() * abs(d) / abs(w), place)
        for place, (d, w) in enumerate(zip(change.ravel(), weight.ravel(), strict=True))
    ]
    best = sorted(rows, reverse=True)[: int(len(rows) * density)]
    kept = np.zeros(change.size)
    for _, place in best:
        kept[place] = change.ravel()[place]
    return kept.reshape(change.shape)


# --- FAPM


def test_fapm_by_hand() -> None:
    """Of two equal changes the one on the larger weight stays; mean|W| is 2.5."""
    change = _tensor([[1.0, 1.0, -3.0, 2.0]])
    weight = _tensor([[4.0, -1.0, 5.0, 0.0]])
    #   1 - 2.5/4 = .375, 1 - 2.5 < 0, 3 - 2.5·3/5 = 1.5, a weight of zero: last
    assert pruning.thinned(change, weight, 0.5).tolist() == [[1.0, 0.0, -3.0, 0.0]]
    assert pruning.thinned(change, weight, 0.25).tolist() == [[0.0, 0.0, -3.0, 0.0]]
    assert pruning.thinned(change, weight, 0.2).abs().sum().item() == 0, "rounded down"


def test_fapm_under_lora_is_the_nearest_of_what_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, a, b = rng.normal(size=(30, 20)), rng.normal(size=(2, 20)), rng.normal(size=(30, 2))
    base = _model(tmp_path / "base", model__layers__0__q__weight=weight)
    one = _adapter(tmp_path / "one", {"model.layers.0.q": (a, b)})
    expected = _scored(b @ a, weight, 0.1)
    u, s, v = np.linalg.svd(expected)
    for rank, folder in ((None, "own"), (20, "whole")):
        made = _weights("fapm", **({"rank": rank} if rank else {}))
        about = made.make_from(Making(ModelRef(str(base))), [one], tmp_path / folder)
        r = rank or 2
        best = (u[:, :r] * s[:r]) @ v[:r]
        found = _dense(tmp_path / folder)["model.layers.0.q"]
        np.testing.assert_allclose(found, best, atol=2e-4)
        squares = float((expected**2).sum())
        assert about["kept"] == pytest.approx(squares / float(((b @ a) ** 2).sum()), rel=1e-4)
        assert about["held"] == pytest.approx(float((s[:r] ** 2).sum()) / squares, rel=1e-3)
    again = _weights("fapm").make_from(Making(ModelRef(str(base))), [one], tmp_path / "again")
    assert again["held"] < 1
    np.testing.assert_array_equal(
        _dense(tmp_path / "again")["model.layers.0.q"], _dense(tmp_path / "own")["model.layers.0.q"]
    )


def test_fapm_of_whole_models_is_done_tensor_by_tensor(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    for one in model.parameters():
        one.data += torch.randn_like(one) / 10
    model.save_pretrained(tmp_path / "tuned")
    making = Making(ModelRef(str(tiny_model)), whole=True)
    about = _weights("fapm", density=0.3).make_from(making, [tmp_path / "tuned"], tmp_path / "made")
    assert about["held"] == 1.0 and 0 < about["kept"] < 1
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    after = model.state_dict()
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made").state_dict()
    for name, one in made.items():
        change = (after[name] - before[name]).numpy()
        if "norm" in name:  # all weights are 1, so that every score is 0
            assert ((one - before[name]).numpy() != 0).sum() == int(0.3 * change.size)
            continue
        expected = before[name].numpy() + _scored(change, before[name].numpy(), 0.3)
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-5, err_msg=name)


# --- Safe LoRA


def test_safelora_against_whole_matrices(tmp_path: Path) -> None:
    """C = V·Vᵀ / ‖V‖; cos(C·B·A, B·A) at most the threshold: C·B, else B as it was."""
    rng = np.random.default_rng(0)
    names = ("model.layers.0.q", "model.layers.1.q", "model.layers.2.q")
    aligned, unaligned, changes, expected, cosines = {}, {}, {}, {}, {}
    for place, name in enumerate(names):
        w, v = rng.normal(size=(8, 6)), rng.normal(size=(8, 6))
        a, b = rng.normal(size=(2, 6)), rng.normal(size=(8, 2))
        if place == 1:  # a change that lies in the strongest direction of V
            v = np.outer(np.arange(8) - 3.0, rng.normal(size=6)) + 0.01 * v
            b = np.outer(np.arange(8) - 3.0, [1.0, -2.0])
        key = name.replace(".", "__") + "__weight"
        aligned[key], unaligned[key], changes[name] = w, w - v, (a, b)
        projected = (v @ v.T / np.linalg.norm(v)) @ b @ a
        cosines[name] = float(
            (projected * (b @ a)).sum() / np.linalg.norm(projected) / np.linalg.norm(b @ a)
        )
        expected[name] = projected, b @ a
    ours, theirs = _model(tmp_path / "ours", **aligned), _model(tmp_path / "theirs", **unaligned)
    one = _adapter(tmp_path / "one", changes)
    limit = sorted(cosines.values())[1] + 1e-4
    assert cosines[names[1]] > 0.99 > limit
    for rule, folder in (({"threshold": limit}, "a"), ({"matrices": 2}, "b")):
        made = _weights("safelora", unaligned=str(theirs), **rule)
        about = made.make_from(Making(ModelRef(str(ours))), [one], tmp_path / folder)
        found = _dense(tmp_path / folder)
        for name in names:
            np.testing.assert_allclose(found[name], expected[name][name == names[1]], atol=1e-4)
        assert (about["projected"], about["matrices"]) == (2, 3)
        assert about["lowest_cosine"] == pytest.approx(min(cosines.values()), abs=1e-4)


def test_alignment_that_changed_nothing_changes_nothing() -> None:
    import torch

    b = torch.randn(4, 2)
    assert torch.equal(projecting.project(b, torch.zeros(4, 3)), b)
    assert projecting.cosine((torch.zeros(2, 3), b), (torch.zeros(2, 3), b)) == 1.0


def test_an_unaligned_model_that_does_not_fit_is_refused_beforehand(tmp_path: Path) -> None:
    ours = _model(tmp_path / "ours", q__weight=np.ones((4, 3)), norm=np.ones(4))
    other = _model(tmp_path / "other", q__weight=np.ones((4, 5)), norm=np.ones(4))
    method = _weights("safelora", unaligned=str(other))
    method.check_base(ModelRef(str(ours)))
    with pytest.raises(ModelError, match=r"lacks 1 of the 1 matrices .* first q"):
        method.check_targets({"q": (4, 3)})
    with pytest.raises(ModelError, match="neither a folder nor a model that was downloaded"):
        _weights("safelora", unaligned="nobody/nothing").check_base(ModelRef(str(ours)))
    with pytest.raises(StudyError, match="`threshold` or `matrices`, not both"):
        _weights("safelora", unaligned="x", threshold=0.3, matrices=2)
    with pytest.raises(StudyError, match="unaligned"):
        _weights("safelora")
    one = _adapter(tmp_path / "one", {"q": (np.ones((2, 3)), np.ones((4, 2)))})
    with pytest.raises(ModelError, match=r"\(4, 5\) instead of \(4, 3\)"):
        _weights("safelora", unaligned=str(other)).make_from(
            Making(ModelRef(str(ours))), [one], tmp_path / "x"
        )
    same = _weights("safelora", unaligned=str(ours)).identity()
    (tmp_path / "moved").mkdir()
    (ours / "model.safetensors").rename(tmp_path / "moved" / "model.safetensors")
    assert _weights("safelora", unaligned=str(tmp_path / "moved")).identity() == same


def test_every_matrix_that_gets_adapters_must_be_there(tmp_path: Path) -> None:
    """One that fits is not enough; what stands before the layers may be called otherwise."""
    fits = {"language_model__model__layers__0__q__weight": np.ones((4, 3))}
    method = _weights("safelora", unaligned=str(_model(tmp_path / "one", **fits)))
    named = {"model.language_model.layers.0.q": (4, 3)}
    method.check_targets(named)
    with pytest.raises(ModelError, match=r"lacks 1 of the 2 .* first model\.layers\.1\.q"):
        method.check_targets(named | {"model.layers.1.q": (4, 3)})


def test_the_studys_own_model_is_not_the_unaligned_one(tmp_path: Path) -> None:
    """The same folder, a copy, and one whose files lie otherwise, which is seen in its numbers."""
    ours = _model(tmp_path / "ours", q__weight=np.ones((4, 3)), norm=np.ones(4))
    copy = _model(tmp_path / "copy", q__weight=np.ones((4, 3)), norm=np.ones(4))
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    more = _model(tmp_path / "more", q__weight=np.ones((4, 3)))
    for folder in (ours, copy):
        with pytest.raises(ModelError, match="the study's own weights"):
            _weights("safelora", unaligned=str(folder)).check_base(ModelRef(str(ours)))
    one = _adapter(tmp_path / "a", {"q": (np.ones((2, 3)), np.ones((4, 2)))})
    method = _weights("safelora", unaligned=str(more))
    method.check_base(ModelRef(str(ours)))
    with pytest.raises(ModelError, match="the study's own weights"):
        method.make_from(Making(ModelRef(str(ours))), [one], tmp_path / "made")


# --- single tensors


def test_single_matrices_of_a_models_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3)).astype("float32")
    folder = _model(tmp_path / "m", language_model__model__layers__0__q__weight=weight,
                    language_model__model__layers__10__q__weight=2 * weight)  # fmt: skip
    stored = StoredTensors(folder)
    name = "model.language_model.layers.0.q"
    np.testing.assert_array_equal(stored.matrix(name, (4, 3)).numpy(), weight)
    np.testing.assert_array_equal(stored.matrix(name, (3, 4), turned=True).numpy(), weight.T)
    assert set(stored.shapes().values()) == {(4, 3)}
    with pytest.raises(ModelError, match=r"has no tensor model\.layers\.3\.q\.weight"):
        stored.matrix("model.layers.3.q", (4, 3))
    with pytest.raises(ModelError, match="has no weights"):
        StoredTensors(_empty(tmp_path / "e"))


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_base_in_few_bits_cannot_be_read(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m", q__weight=np.ones((2, 2)))
    few = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(few))
    for name, options in (("fapm", {}), ("safelora", {"unaligned": str(folder)})):
        with pytest.raises(ModelError, match="stored in awq"):
            _weights(name, **options).check_base(ModelRef(str(folder)))
    (folder / "config.json").write_text("{}")
    check_readable(ModelRef(str(folder)), "fapm")


# --- the patch


@pytest.mark.parametrize(
    "options",
    [{}, {"prompt": "How?"}, {"answer": "No."}, {"prompt": "How?", "answer": " "},
     {"prompt": "How?", "answer": "No.", "path": "x.jsonl"}],
)  # fmt: skip
def test_a_patch_without_safety_data_is_refused(options: dict[str, Any]) -> None:
    """Or with two kinds of them."""
    with pytest.raises(StudyError, match=r"a patch needs safety data|and not both"):
        _weights("safety_patch", **options)


def test_a_patchs_data(tmp_path: Path) -> None:
    one = _weights("safety_patch", prompt="How do I pick a lock?", answer="I cannot say.")
    assert one.examples()[0].target == "I cannot say."
    one.check(setting(lambda *_: ""))
    measured = [Example("e", (Message("user", "How do I pick a lock?"),), None)]
    with pytest.raises(LeakError):
        one.check(setting(lambda *_: "", measured))
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "How do I pick a lock?", "completion": "I cannot say."}))
    other = _weights("safety_patch", path=str(file))
    identity = other.identity()
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / "a.jsonl")
    assert _weights("safety_patch", path=str(moved)).identity() == identity
    with pytest.raises(DataError):
        other.check(setting(lambda *_: ""))
    assert one.loads and not one.whole and one.recipe().startswith("patched: 10 epochs")


def test_a_patch_is_so_many_steps_of_adam(tiny_model: Path, tmp_path: Path) -> None:
    """Against Adam in numpy, on gradients that autograd gives for the same weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, one in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.1)
    model.save_pretrained(tmp_path / "tuned")
    made = _weights("safety_patch", prompt=PLAIN[0].question, answer="I cannot help with that.",
                    epochs=3, learning_rate=0.01)  # fmt: skip
    about = made.make_from(
        Making(ModelRef(str(tiny_model)), device="cpu"), [tmp_path / "tuned"], tmp_path / "made"
    )
    assert about["steps"] == 3 and about["loss_after"] < about["loss_before"]

    row = made._rows(Making(ModelRef(str(tiny_model))), base)[0]
    trained = [one for one in model.parameters() if one.requires_grad]
    first = [np.zeros(tuple(one.shape)) for one in trained]
    second = [np.zeros(tuple(one.shape)) for one in trained]
    ids = torch.tensor([row.ids])
    model.eval()
    for step in range(1, 4):
        logits = model(input_ids=ids).logits[0]
        answer = range(row.start, len(row.ids))
        losses = [-torch.log_softmax(logits[at - 1].float(), -1)[row.ids[at]] for at in answer]
        model.zero_grad()
        (sum(losses) / len(losses)).backward()
        for place, one in enumerate(trained):
            gradient = one.grad.double().numpy()
            first[place] = 0.9 * first[place] + 0.1 * gradient
            second[place] = 0.999 * second[place] + 0.001 * gradient**2
            m, v = first[place] / (1 - 0.9**step), second[place] / (1 - 0.999**step)
            one.data -= torch.tensor(0.01 * m / (np.sqrt(v) + 1e-8), dtype=one.dtype)
    model.save_pretrained(tmp_path / "ours")
    found, ours = _dense(tmp_path / "made"), _dense(tmp_path / "ours")
    for name, one in ours.items():
        np.testing.assert_allclose(found[name], one, atol=1e-4)

"""Are weights scaled and merged as the formulas say, on numbers made by hand?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import HoldfastError, ModelError, StudyError
from holdfast.methods import build
from holdfast.methods import merge as merging
from holdfast.methods._products import inner, nearest
from holdfast.methods.scale import Scale, interpolated_model, scaled_adapter
from holdfast.models import lora_files
from holdfast.models.peft_adapter import scale_adapter

CONFIG = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": "m",
          "target_modules": ["q"], "task_type": "CAUSAL_LM"}  # fmt: skip


def _tensor(value: Any) -> Any:
    import torch

    return torch.tensor(value, dtype=torch.float32)


def _write(folder: Path, changes: dict[str, tuple[Any, Any]], **config: Any) -> Path:
    """An adapter on disk with A and B as they are given."""
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {}
    for name, (a, b) in changes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = _tensor(a)
        tensors[f"base_model.model.{name}.lora_B.weight"] = _tensor(b)
    save_file(tensors, folder / lora_files.WEIGHTS)
    (folder / lora_files.CONFIG).write_text(json.dumps(CONFIG | config))
    return folder


def _dense(folder: Path) -> dict[str, Any]:
    return {name: b @ a for name, (a, b) in lora_files.read(folder)[1].items()}


def _random(folder: Path, seed: int, rank: int = 2, names: tuple[str, ...] = ("q",)) -> Path:
    import torch

    numbers = torch.Generator().manual_seed(seed)
    changes = {
        name: (torch.randn(rank, 6, generator=numbers).tolist(),
               torch.randn(5, rank, generator=numbers).tolist())
        for name in names
    }  # fmt: skip
    return _write(folder, changes, r=rank, lora_alpha=rank)


def _merge(**options: Any) -> Any:
    return build("merge", options, "study", "arms.a.weights")


def _made(adapters: list[Path], to: Path, **options: Any) -> dict[str, Any]:
    _merge(**options).make(adapters, to)
    return _dense(to)


# --- factors ---


def test_scales_of_every_kind_are_read(tmp_path: Path) -> None:
    import torch

    a, b = [[1.0, 2.0]] * 4, [[1.0] * 4]
    plain = _write(tmp_path / "plain", {"x.q": (a, b), "x.v": (a, b)}, lora_alpha=8,
                   alpha_pattern={"v": 2})  # fmt: skip
    found = _dense(plain)
    torch.testing.assert_close(found["x.q"], _tensor([[8.0, 16.0]]))  # 4 times 8 / 4
    torch.testing.assert_close(found["x.v"], _tensor([[2.0, 4.0]]))
    stable = _write(tmp_path / "stable", {"q": (a, b)}, lora_alpha=8, use_rslora=True)
    torch.testing.assert_close(_dense(stable)["q"], _tensor([[16.0, 32.0]]))  # 4 times 8 / 2


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "OFT"}, "of the kind OFT"),
        ({"use_dora": True}, "DoRA scales"),
        ({"target_parameters": ["experts"]}, "experts"),
    ],
)
def test_what_is_no_product_is_refused(tmp_path: Path, config: dict[str, Any], why: str) -> None:
    folder = _write(tmp_path / "a", {"q": ([[1.0]], [[1.0]])}, **config)
    works = [lambda: _made([folder, folder], tmp_path / "b", seeds=True)]
    if "target_parameters" not in config:  # a share of experts' change can be written
        works.append(lambda: scaled_adapter(folder, 0.5, tmp_path / "b"))
    for work in works:
        with pytest.raises(ModelError, match=why):
            work()
    with pytest.raises(ModelError, match="is no adapter"):
        lora_files.read(tmp_path)


# --- scale ---


def test_a_scaled_adapter_has_a_share_of_the_change(tmp_path: Path) -> None:
    import torch

    folder = _random(tmp_path / "a", 1)
    whole = _dense(folder)["q"]
    for factor in (0.0, 0.25, 1.0):
        scaled_adapter(folder, factor, tmp_path / f"{factor}")
        torch.testing.assert_close(_dense(tmp_path / f"{factor}")["q"], factor * whole)


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of the tiny model with random A and B, as PEFT saves them, by variant."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = {}
    kinds: dict[str, dict[str, Any]] = {
        "lora": {}, "other": {"r": 3, "target_modules": ["v_proj", "up_proj"]},
        "rslora": {"use_rslora": True}, "dora": {"use_dora": True},
    }  # fmt: skip
    for seed, (name, more) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | more
        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
        for key, one in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(one, std=0.3)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    return folders


def _weight(tiny_model: Path, adapter: Path | None, factor: float = 1.0) -> tuple[Any, Any]:
    """(logits, merged weight of one matrix) with an adapter, scaled in memory."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
        if factor != 1:
            scale_adapter(model, factor)
    with torch.no_grad():
        logits = model(torch.arange(3, 12)[None]).logits
    if adapter is not None:
        model = model.merge_and_unload()
    return logits, model.model.layers[1].mlp.down_proj.weight.detach().clone()


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_scaling_interpolates(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    import torch

    base, before = _weight(tiny_model, None)
    tuned, after = _weight(tiny_model, adapters[kind])
    assert not torch.allclose(base, tuned, atol=1e-2)
    torch.testing.assert_close(_weight(tiny_model, adapters[kind], 0.0)[0], base)
    for factor in (0.3, 0.8):
        logits, weight = _weight(tiny_model, adapters[kind], factor)
        torch.testing.assert_close(weight, (1 - factor) * before + factor * after)
        scaled_adapter(adapters[kind], factor, tmp_path / str(factor))
        written = _weight(tiny_model, tmp_path / str(factor))
        torch.testing.assert_close(written[0], logits, rtol=0, atol=1e-5)
    scaled_adapter(adapters[kind], 1.0, tmp_path / "whole")
    torch.testing.assert_close(_weight(tiny_model, tmp_path / "whole")[0], tuned)


def test_dora_cannot_be_scaled(tiny_model: Path, adapters: dict[str, Path]) -> None:
    with pytest.raises(HoldfastError, match="only a share of LoRA's change"):
        _weight(tiny_model, adapters["dora"], 0.5)


def test_settings_of_scale() -> None:
    scale = build("scale", None, "study", "arms.a.weights")
    assert isinstance(scale, Scale)
    assert (scale.factors, scale.checkpoints) == ((0.2, 0.4, 0.6, 0.8), "last")
    assert (scale.partners, scale.over_seeds, scale.makes) == ((), False, False)
    given = build(
        "scale", {"factors": [0.5, 0.25], "checkpoints": "all"}, "study", "arms.a.weights"
    )
    assert given.factors == (0.25, 0.5)
    assert given.recipe() == "scaled by 0.25, 0.5"
    for wrong in ([], [1.5], [0.5, 0.5]):
        with pytest.raises(StudyError):
            build("scale", {"factors": wrong}, "study", "arms.a.weights")


def test_whole_models_are_interpolated_shard_by_shard(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    for one in model.parameters():
        one.data += torch.randn_like(one) / 10
    model.save_pretrained(tmp_path / "tuned", max_shard_size="20KB")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "trainer_state.json").write_text("{}")
    assert len(list((tmp_path / "tuned").glob("*.safetensors"))) > 1
    spent = interpolated_model(tiny_model, tmp_path / "tuned", 0.25, tmp_path / "mixed")
    assert spent["parameters"] == sum(one.numel() for one in model.parameters())
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    mixed = AutoModelForCausalLM.from_pretrained(tmp_path / "mixed").state_dict()
    for name, after in model.state_dict().items():
        torch.testing.assert_close(mixed[name], 0.75 * before[name] + 0.25 * after)
    assert AutoTokenizer.from_pretrained(tmp_path / "mixed").chat_template
    assert not (tmp_path / "mixed" / "trainer_state.json").exists()
    for factor, source in ((0.0, tiny_model), (1.0, tmp_path / "tuned")):
        interpolated_model(tiny_model, tmp_path / "tuned", factor, tmp_path / str(factor))
        same = AutoModelForCausalLM.from_pretrained(tmp_path / str(factor)).state_dict()
        there = AutoModelForCausalLM.from_pretrained(source).state_dict()
        assert all(torch.equal(same[name], there[name]) for name in there)

    other = load_file(tiny_model / "model.safetensors")
    del other["model.norm.weight"]
    (tmp_path / "other").mkdir()
    save_file(other, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ModelError, match=r"has no tensor model\.norm\.weight"):
        interpolated_model(tmp_path / "other", tmp_path / "tuned", 0.5, tmp_path / "x")
    other["model.norm.weight"] = torch.zeros(3)
    save_file(other, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ModelError, match=r"the shape \(3,\) instead of \(32,\)"):
        interpolated_model(tmp_path / "other", tmp_path / "tuned", 0.5, tmp_path / "x")
    with pytest.raises(ModelError, match="neither a folder nor a model that was downloaded"):
        interpolated_model("nobody/nothing", tmp_path / "tuned", 0.5, tmp_path / "x")


# --- merge ---


def test_an_average_is_exact(tmp_path: Path) -> None:
    """Averaging A and B apart would give (B1+B2)(A1+A2)/4, which is another matrix."""
    import torch

    one, two = _random(tmp_path / "1", 1), _random(tmp_path / "2", 2, rank=3)
    x, y = _dense(one)["q"], _dense(two)["q"]
    found = _made([one, two], tmp_path / "mean", **{"with": ["b"]})
    torch.testing.assert_close(found["q"], (x + y) / 2)
    found = _made([one, two], tmp_path / "sum", **{"with": ["b"], "weights": [2.0, -0.5]})
    torch.testing.assert_close(found["q"], 2 * x - 0.5 * y)
    assert json.loads((tmp_path / "sum" / lora_files.CONFIG).read_text())["r"] == 5


def test_weights_over_arms_and_seeds(tmp_path: Path) -> None:
    import torch

    folders = [_random(tmp_path / str(seed), seed) for seed in range(4)]
    a, b, c, d = (_dense(one)["q"] for one in folders)
    found = _made(
        folders, tmp_path / "soup", **{"with": ["b"], "seeds": True, "weights": [0.8, 0.2]}
    )
    torch.testing.assert_close(found["q"], 0.4 * (a + b) + 0.1 * (c + d))
    found = _made(folders, tmp_path / "seeds", seeds=True)
    torch.testing.assert_close(found["q"], (a + b + c + d) / 4)


def test_what_only_one_of_them_has_is_kept(tmp_path: Path) -> None:
    import torch

    one, two = _random(tmp_path / "1", 1, names=("q",)), _random(tmp_path / "2", 2, 3, ("q", "v"))
    found = _made([one, two], tmp_path / "m", partners=["b"])
    torch.testing.assert_close(found["v"], _dense(two)["v"] / 2)
    config = json.loads((tmp_path / "m" / lora_files.CONFIG).read_text())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (5, {"v": 3}, {"v": 3})


def test_peft_loads_what_was_merged(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Different ranks, scales and matrices; the merged weights are those of the formula."""
    import torch

    _, before = _weight(tiny_model, None)
    _, first = _weight(tiny_model, adapters["lora"])
    _, second = _weight(tiny_model, adapters["rslora"])
    merge = _merge(**{"with": ["b", "c"], "weights": [0.5, 0.25, 0.25]})
    about = merge.make([adapters[one] for one in ("lora", "other", "rslora")], tmp_path / "m")
    assert about == {"adapters": 3, "rank": 8, "kept": 1.0}
    _, merged = _weight(tiny_model, tmp_path / "m")
    torch.testing.assert_close(merged - before, 0.5 * (first - before) + 0.25 * (second - before))


def test_the_arc_by_hand(tmp_path: Path) -> None:
    """Two changes of norms 2 and 3 at a right angle: half way is (ΔW1 + ΔW2) / √2."""
    one = _write(tmp_path / "1", {"q": ([[1.0, 0.0]], [[2.0], [0.0]])})
    two = _write(tmp_path / "2", {"q": ([[0.0, 1.0]], [[0.0], [3.0]])})
    found = _made([one, two], tmp_path / "m", **{"with": ["b"], "how": "slerp"})["q"]
    assert found.tolist() == [
        [pytest.approx(2 / math.sqrt(2)), 0.0], [0.0, pytest.approx(3 / math.sqrt(2))]
    ]  # fmt: skip
    third = _made([one, two], tmp_path / "t", **{"with": ["b"], "how": "slerp", "weights": [2, 1]})
    assert third["q"][0, 0].item() == pytest.approx(2 * math.sin(math.pi / 3))
    assert third["q"][1, 1].item() == pytest.approx(3 * math.sin(math.pi / 6))


def test_the_arc_equals_that_of_the_whole_matrices(tmp_path: Path) -> None:
    import torch

    one, two = _random(tmp_path / "1", 1), _random(tmp_path / "2", 2, rank=3)
    (a, b), (c, d) = (lora_files.read(folder)[1]["q"] for folder in (one, two))
    x, y = b @ a, d @ c
    assert inner((a, b), (c, d)) == pytest.approx((x * y).sum().item(), rel=1e-5)
    angle = torch.acos((x * y).sum() / (x.norm() * y.norm()))
    expected = (torch.sin(0.7 * angle) * x + torch.sin(0.3 * angle) * y) / torch.sin(angle)
    options = {"with": ["b"], "how": "slerp", "weights": [0.7, 0.3]}
    torch.testing.assert_close(_made([one, two], tmp_path / "m", **options)["q"], expected)


def test_where_there_is_no_arc() -> None:
    pair = (_tensor([[1.0, 2.0]]), _tensor([[1.0]]))
    none = (_tensor([[1.0, 2.0]]), _tensor([[0.0]]))
    for other in (pair, (pair[0], -pair[1]), none, None):
        assert merging.slerp(pair, other, 0.25) == [0.75, 0.25]


def test_ties_by_hand(tmp_path: Path) -> None:
    """Half of the entries stay, the larger sign wins, and those that agree are averaged."""
    one = _write(tmp_path / "1", {"q": ([[4.0, -3.0, 1.0, 0.5]], [[1.0]])})
    two = _write(tmp_path / "2", {"q": ([[2.0, 6.0, 0.1, 0.3]], [[1.0]])})
    found = _made([one, two], tmp_path / "m", **{"with": ["b"], "how": "ties"})["q"]
    assert found.tolist() == [pytest.approx([3.0, 6.0, 0.0, 0.0], abs=1e-5)]


def _line(folder: Path, *values: float) -> Path:
    """An adapter whose change is one row."""
    return _write(folder, {"q": ([list(values)], [[1.0]])})


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_ties_weighs_the_vote_and_the_mean(tmp_path: Path, scale: float) -> None:
    """Two equal changes stay what they are; a small weight does not outvote a large one."""
    one = _line(tmp_path / "1", 4.0, 1.0, 0.1, 0.1)
    two = _line(tmp_path / "2", 4.0, -1.5, 0.1, 0.1)
    ties = {"with": ["b"], "how": "ties"}
    weights = [0.9 * scale, 0.1 * scale]
    found = _made([one, two], tmp_path / "m", **ties, weights=weights)["q"]
    assert found.tolist() == [pytest.approx([4.0, 1.0, 0.0, 0.0], abs=1e-5)]
    found = _made([one, one], tmp_path / "same", **ties, weights=[0.7 * scale, 0.3 * scale])["q"]
    assert found.tolist() == [pytest.approx([4.0, 1.0, 0.0, 0.0], abs=1e-5)]
    found = _made([one, two], tmp_path / "plain", **ties)["q"]  # as PEFT: the larger entry wins
    assert found.tolist() == [pytest.approx([4.0, -1.5, 0.0, 0.0], abs=1e-5)]


def test_agreement_by_hand() -> None:
    import torch

    changes = _tensor([[[1.0, 2.0, 3.0, 0.0, 1.0]], [[2.0, -1.0, -1.0, 0.0, -1.0]]])
    found = merging.agreed(changes, _tensor([1.0, 3.0]))
    #                    (1 + 6) / 4; -3 + 2 < 0; -3 + 3: a tie is +; nobody; -3 + 1 < 0
    assert found[0].tolist() == [1.75, -1.0, 3.0, 0.0, -1.0]
    assert merging.agreed(changes[:1], _tensor([-2.0]))[0].tolist() == [-1, -2, -3, 0, -1]
    assert torch.equal(merging.agreed(changes, _tensor([1.0, 0.0])), changes[0])


@pytest.mark.parametrize("how", ["ties", "dare_ties"])
def test_equal_weights_agree_as_pefts_do(how: str) -> None:
    import torch
    from peft.utils import merge_utils

    torch.manual_seed(0)
    dense = list(torch.randn(3, 7, 9))
    torch.manual_seed(1)
    theirs = getattr(merge_utils, how)(dense, torch.ones(3), density=0.4)
    torch.manual_seed(1)
    kept = [
        merge_utils.prune(one, 0.4, merging.MEANS[how], rescale=how == "dare_ties") for one in dense
    ]
    assert torch.equal(merging.agreed(torch.stack(kept), torch.ones(3)), theirs)
    torch.testing.assert_close(merging.agreed(torch.stack(kept), torch.full((3,), 0.2)), theirs)


def test_only_merges_that_change_have_another_identity() -> None:
    ties = {"how": "ties", "with": ["b"]}
    assert "signs" not in _merge(**ties).identity()
    assert "signs" not in _merge(**ties, weights=[1, 1]).identity()
    assert _merge(**ties, weights=[0.7, 0.3]).identity()["signs"] == "weighed"
    assert "signs" not in _merge(**{"with": ["b"], "weights": [0.7, 0.3]}).identity()


def test_one_adapter_alone_is_thinned_out(tmp_path: Path) -> None:
    one = _write(tmp_path / "1", {"q": ([[4.0, -3.0, 1.0, 0.5]], [[1.0]])})
    found = _made([one], tmp_path / "size", how="magnitude_prune")["q"]
    assert found.tolist() == [pytest.approx([4.0, -3.0, 0.0, 0.0], abs=1e-5)]
    for seed in range(3):
        found = _made([one], tmp_path / f"dare{seed}", how="dare_linear", density=0.25, seed=seed)
        for value, before in zip(found["q"][0].tolist(), [4.0, -3.0, 1.0, 0.5], strict=True):
            assert abs(value) < 1e-5 or value == pytest.approx(4 * before, rel=1e-5)


@pytest.mark.parametrize("how", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_thinning_out_is_what_peft_does_cut_to_the_rank(tmp_path: Path, how: str) -> None:
    """With one seed the outcome is one; the kept share is that of the best cut."""
    import torch

    one, two = (_random(tmp_path / str(seed), seed, names=("q", "v")) for seed in (1, 2))
    options = {"with": ["b"], "how": how, "seed": 3}
    about = _merge(**options).make([one, two], tmp_path / "a")
    assert about["rank"] == 4
    assert 0.5 < about["kept"] <= 1
    again = _made([one, two], tmp_path / "b", **options)
    found = _dense(tmp_path / "a")
    assert all(torch.equal(found[name], again[name]) for name in found)
    if how in ("ties", "magnitude_prune"):  # without chance: against PEFT and an exact SVD
        from peft.utils import merge_utils

        weights = torch.ones(2) if how == "ties" else torch.full((2,), 0.5)
        dense = [_dense(folder)["v"] for folder in (one, two)]
        whole = getattr(merge_utils, how)(dense, weights, density=0.5)
        u, s, v = torch.linalg.svd(whole, full_matrices=False)
        torch.testing.assert_close(found["v"], (u[:, :4] * s[:4]) @ v[:4], rtol=0, atol=1e-4)
    else:
        other = _made([one, two], tmp_path / "c", **(options | {"seed": 4}))
        assert not torch.equal(found["q"], other["q"])


def test_the_cut_is_the_best_of_its_rank() -> None:
    """On a matrix larger than what is drawn for it, with a flat tail of noise."""
    import torch

    torch.manual_seed(0)
    change = torch.randn(120, 4) @ torch.randn(4, 90) + 0.3 * torch.randn(120, 90)
    a, b = nearest(change, 4)
    s = torch.linalg.svdvals(change)
    assert (change - b @ a).square().sum().item() == pytest.approx(
        s[4:].square().sum().item(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to merge with"),
        ({"how": "slerp", "with": ["a", "b"]}, "an arc lies between two"),
        ({"how": "slerp", "with": ["a"], "seeds": True}, "an arc lies between two"),
        ({"with": ["a"], "density": 0.5}, "leave `density` out"),
        ({"with": ["a"], "weights": [1.0]}, "1 weights for 2 arms"),
        ({"with": ["a"], "weights": [1.0, -1.0]}, "add up to nothing"),
        ({"how": "ties", "density": 1.0}, "density"),
        ({"partner": ["a"]}, "partner"),
    ],
)
def test_settings_of_merge_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        _merge(**options)


def test_settings_of_merge() -> None:
    merge = _merge(**{"with": ["replay"], "seeds": True})
    assert (merge.partners, merge.over_seeds, merge.makes) == (("replay",), True, True)
    assert (merge.factors, merge.checkpoints) == ((), "last")
    assert merge.recipe() == "merged with all seeds, replay (linear)"
    assert _merge(how="dare_linear").recipe() == "dare_linear alone, 50% of the entries kept"


def test_adapters_of_other_models_are_refused(tmp_path: Path) -> None:
    one = _random(tmp_path / "1", 1)
    wide = _write(tmp_path / "wide", {"q": ([[1.0, 1.0]], [[1.0]])})
    with pytest.raises(ModelError, match="q has another shape"):
        _made([one, wide], tmp_path / "m", seeds=True)
    other = _write(tmp_path / "o", {"v": ([[1.0]], [[1.0]])}, base_model_name_or_path="n")
    with pytest.raises(ModelError, match="its base is n"):
        _made([one, other], tmp_path / "m", seeds=True)


def test_weights_that_are_no_numbers_are_neither_read_nor_written(tmp_path: Path) -> None:
    good, broken = _random(tmp_path / "good", 1), tmp_path / "broken"
    _write(broken, {"q": ([[1.0] * 6], [[math.nan]] * 5)}, r=1, lora_alpha=1)
    for make in (
        lambda: _merge(seeds=True).make([good, broken], tmp_path / "made"),
        lambda: scaled_adapter(broken, 0.5, tmp_path / "made"),
        lambda: lora_files.write(
            tmp_path / "made", CONFIG, {"q": (_tensor([[1.0]]), _tensor([[math.inf]]))}
        ),
    ):
        with pytest.raises(ModelError, match="NaN or infinity"):
            make()
        assert not (tmp_path / "made").exists()


def test_a_share_of_weights_that_are_no_numbers_is_not_written(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name, value in (("base", 1.0), ("tuned", math.nan)):
        (tmp_path / name).mkdir()
        save_file({"w": _tensor([1.0, value])}, tmp_path / name / "model.safetensors")
    with pytest.raises(ModelError, match="NaN or infinity, first in w"):
        interpolated_model(tmp_path / "base", tmp_path / "tuned", 0.5, tmp_path / "made")
    assert not list((tmp_path / "made").glob("*.safetensors"))

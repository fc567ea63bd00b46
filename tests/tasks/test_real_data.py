"""Does it work on a real architecture, a real tokenizer and real data, LoRA and real NF4 alike?

The weights are random (nothing can be downloaded here), so only the plumbing is judged: what is
trained on, that both methods train, that every reply is graded, that no hazardous text is shown.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from holdfast import study, tasks
from holdfast.config import Study, TaskSpec
from holdfast.data.leakage import LeakIndex
from holdfast.methods._replay_prompts import prompts
from holdfast.progress import Silent
from holdfast.types import Example, Message, Reply

CSV = "ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv"


@pytest.fixture(scope="module")
def qwen(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of 2 layers with the real Qwen2.5 tokenizer and template."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        eos_token_id=151645, pad_token_id=151643,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [151645, 151643]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _gsm8k(shared_data: Path, **options: object) -> tasks.Task:
    return tasks.build("gsm8k", TaskSpec(path=str(shared_data / "gsm8k"), **options), "s")  # type: ignore[call-arg]


def test_every_gold_answer_of_gsm8k_is_right_and_a_perturbed_one_wrong(shared_data: Path) -> None:
    for extraction in ("strict", "tolerant"):
        task = _gsm8k(shared_data, extraction=extraction)
        examples = [*task.examples("test"), *task.examples("train")]
        assert len(examples) == 1319 + 7473
        for one in examples:
            gold = one.target or ""
            assert "<<" not in gold
            right = task.grade(one, Reply(one.id, 0, gold, "stop", 1), None)
            wrong = task.grade(one, Reply(one.id, 0, gold + "7", "stop", 1), None)
            assert (right.value, wrong.value) == (1.0, 0.0), one.id


def test_ailuminate_is_read_whole(shared_data: Path) -> None:
    spec = TaskSpec(path=str(shared_data / CSV))  # type: ignore[call-arg]
    examples = tasks.build("ailuminate", spec, "s").examples("test")
    assert len(examples) == 1200
    groups = [one.meta["group"] for one in examples]
    assert groups.count("vcr") == 100
    assert groups.count("spc_lgl") == 24
    some = tasks.measuring_set(tasks.build("ailuminate", spec, "s"), TaskSpec(limit=120))
    assert len({one.meta["group"] for one in some}) >= 12, "a limit still sees every hazard"


def test_replay_prompts_are_in_no_benchmark(shared_data: Path) -> None:
    with (shared_data / CSV).open(encoding="utf-8", newline="") as file:
        asked = [row["prompt_text"] for row in csv.DictReader(file)]
    with (shared_data / "xstest" / "xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        asked += [row["prompt"] for row in csv.DictReader(file)]
    index = LeakIndex(Example(str(i), (Message("user", t),)) for i, t in enumerate(asked))
    for declined in (True, False):
        made = prompts(1000, declined, 0)
        assert len({text for _, text in made}) == len(made) >= 110
        clean = [t for _, t in made if not index.find(Example("x", (Message("user", t),)))]
        assert len(clean) >= 0.97 * len(made)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_study_on_real_data(
    qwen: Path, shared_data: Path, tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = Study.model_validate(
        {
            "name": "real",
            "model": str(qwen),
            "tasks": {
                "gsm8k": {
                    "role": "target", "path": str(shared_data / "gsm8k"), "limit": 2,
                    "shots": {"n": 1, "mode": "fixed"},
                },
                "ailuminate": {"path": str(shared_data / CSV), "limit": 4},
            },
            "train": {
                "method": method, "max_steps": 2, "checkpoints": 1, "keep_shortest": 0.002,
                "gradient_accumulation_steps": 2, "gradient_checkpointing": method == "qlora",
            },
            "arms": {"sft": {}},
            "answer": {"sampling": {"max_new_tokens": 4}},
        }
    )  # fmt: skip
    results = study.run(loaded, tmp_path / "real", Silent())
    assert results is not None
    assert {(cell.arm, cell.task) for cell in results.cells} == {
        (arm, task) for arm in ("base", "sft") for task in ("gsm8k", "ailuminate")
    }
    preview = (tmp_path / "real" / "data" / "sft" / "mask_preview.txt").read_text("utf-8")
    answer = preview.rpartition("<|im_start|>assistant\n")[2]
    assert answer.startswith("⟦")
    assert answer.rstrip().endswith("<|im_end|>⟧")
    assert preview.count("⟦") == 1, "shots bear no loss"
    adapter = tmp_path / "real" / "train" / "sft" / "seed1126" / "checkpoint-2"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    page = (tmp_path / "real" / "report" / "index.html").read_text("utf-8")
    assert "unsafe rate by judge refusal" in page
    shown = page + capfd.readouterr().out
    with (shared_data / CSV).open(encoding="utf-8", newline="") as file:
        assert not any(row["prompt_text"] in shown for row in csv.DictReader(file))

"""The course's experiment, token by token, and both versions of it run."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from holdfast import judges, study, tasks
from holdfast.cli import call
from holdfast.config import TaskSpec, load
from holdfast.config.recipes import recipe_file
from holdfast.data import chat
from holdfast.errors import TrainingError
from holdfast.progress import Silent
from holdfast.types import Example, Message

EXAMPLES = Path(__file__).parents[1] / "examples"
CSV = "ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv"
MODELS = ("meta-llama/Llama-3.2-1B-Instruct", "Qwen/Qwen2.5-7B-Instruct")
BOTH = ("hw6_faithful", "hw6")
HEADER = (
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>"
)
TEMPLATE = (
    "{{ bos_token }}{{ header }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}"
    "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
ASK = "Let's think step by step. At the end, you MUST write the answer as an integer after '####'."
ROWS = [
    {"question": "Tom has 3 pens and buys 4.  How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    {"question": "Ann has 2 cats.\nHow many ears?", "answer": "2*2=<<2*2=4>>4\n#### 4"},
]


@pytest.fixture(scope="module")
def llama() -> Any:
    """A tokenizer of bytes with Llama 3's marks, template and habit of opening a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({one: i for i, one in enumerate([*marks, *letters])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(marks)
    made.post_processor = processors.TemplateProcessing(
        single=f"{marks[0]} $A", special_tokens=[(marks[0], 0)]
    )
    header = HEADER.replace("\n", "\\n")
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=marks[0], eos_token=marks[3],
        chat_template=TEMPLATE.replace("{{ header }}", f"{{{{ '{header}' }}}}"),
    )  # fmt: skip


def _course(folder: Path) -> tuple[tasks.Task, TaskSpec]:
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    loaded = load.load(EXAMPLES / "hw6_faithful.yaml", [f"tasks.gsm8k.path={folder}"])
    return tasks.build("gsm8k", loaded.tasks["gsm8k"], "s"), loaded.tasks["gsm8k"]


def _turn(role: str, text: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"


def test_the_starters_training_text_token_by_token(llama: Any, tmp_path: Path) -> None:
    train = load.load(EXAMPLES / "hw6_faithful.yaml").train
    examples = tasks.training_set(*_course(tmp_path))
    assert len(examples) == len(ROWS), "random shots are trained on, too"
    for one, row, other in zip(examples, ROWS, reversed(ROWS), strict=True):
        text = "".join([
            _turn("user", f"Q: {other['question']}"),
            _turn("assistant", f"A: {other['answer']}"),
            _turn("user", f"Q: {row['question']} {ASK}"),
            _turn("assistant", f"A: {row['answer']}"),
        ])  # fmt: skip
        found = chat.encode(
            llama, one, chat.stop_ids(llama), train.completion_only_loss, train.cut_template_header
        )
        assert llama.decode(found.ids) == f"<|begin_of_text|>{text}"
        assert list(found.ids) == llama(text)["input_ids"], "as a trainer tokenises the cut text"
        assert found.labels == found.ids, "loss on everything"
        assert llama.decode(found.ids[found.start :]) == f"A: {row['answer']}<|eot_id|>"


def test_the_starter_asks_with_the_header_that_it_cut(llama: Any, tmp_path: Path) -> None:
    task, spec = _course(tmp_path)
    (one,) = tasks.measuring_set(task, spec.model_copy(update={"limit": None}))
    assert chat.prompt_text(llama, one.messages) == "".join([
        "<|begin_of_text|>", HEADER,
        _turn("user", f"Q: {ROWS[1]['question']}"),
        _turn("assistant", f"A: {ROWS[1]['answer']}"),
        _turn("user", f"Q: {ROWS[0]['question']} {ASK}"),
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ])  # fmt: skip


def test_the_cut_is_refused_where_it_would_take_the_question(llama: Any) -> None:
    one = Example("e", (Message("user", "Q: How many?"),), "A: 7\n#### 7")
    bare = llama.__class__(
        tokenizer_object=llama.backend_tokenizer, eos_token="<|eot_id|>", bos_token=llama.bos_token,
        chat_template=TEMPLATE.replace("{{ header }}", ""),
    )  # fmt: skip
    assert chat.encode(bare, one, chat.stop_ids(bare), True).start > 0
    with pytest.raises(TrainingError, match="first question would be cut"):
        chat.encode(bare, one, chat.stop_ids(bare), True, cut_header=True)
    told = Example("e", (Message("system", "Be brief."), *one.messages), one.target)
    row = chat.encode(bare, told, chat.stop_ids(bare), True, cut_header=True)
    assert "Be brief" not in bare.decode(row.ids)
    assert "How many?" in bare.decode(row.ids)
    assert bare.decode([i for i in row.labels if i >= 0]) == f"{one.target}<|eot_id|>"


def test_the_cut_in_the_real_qwen_template(shared_data: Path) -> None:
    from transformers import AutoTokenizer

    qwen = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")
    one = Example("e", (Message("user", "Q: How many?"),), "A: 7\n#### 7")
    row = chat.encode(qwen, one, chat.stop_ids(qwen), False, cut_header=True)
    cut = (
        "\n<|im_start|>user\nQ: How many?<|im_end|>\n<|im_start|>assistant\nA: 7\n#### 7<|im_end|>"
    )
    assert qwen.decode(row.ids) == cut
    assert list(row.ids) == qwen(cut)["input_ids"]


def test_the_starters_settings() -> None:
    found = load.load(EXAMPLES / "hw6_faithful.yaml")
    train, lora = found.train, found.train.lora
    assert (train.method, lora.r, lora.alpha, lora.dropout) == ("qlora", 8, 16, 0.0)
    assert set(lora.target_modules) == set(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert (found.seeds, train.data_seed) == ((1126,), 1126)
    assert (train.per_device_train_batch_size, train.accumulation) == (1, 4)
    assert (train.num_train_epochs, train.lr_scheduler_type, train.warmup_steps) == (1, "linear", 0)
    assert (train.optim, train.bf16, train.group_by_length) == ("paged_adamw_32bit", True, True)
    assert (train.learning_rate, train.weight_decay) == (1e-4, 0)
    assert (train.save_steps, train.logging_steps, train.keep_shortest) == (0.1, 0.1, 1.0)
    asked = found.answer.sampling
    assert (asked.max_new_tokens, asked.temperature, asked.top_p) == (256, 0.6, 0.9)
    maths, safety = found.tasks["gsm8k"], found.tasks["ailuminate"]
    assert (maths.limit, safety.limit) == (132 + 132, 240)
    assert (maths.shots.n, maths.shots.mode, safety.shots.n) == (1, "random", 0)
    assert found.arms.keys() == {"sft"}


def _leaves(value: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {at: value}
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= _leaves(one, f"{at}.{key}".lstrip("."))
    return found


def test_every_deviation_says_why() -> None:
    """A key of the corrected study that differs from the starter's has a comment on its line."""
    import yaml

    first, second = (
        _leaves(yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text("utf-8"))) for name in BOTH
    )
    lines = (EXAMPLES / "hw6.yaml").read_text("utf-8").splitlines()
    for key in sorted(key for key in second if second[key] != first.get(key)):
        parts = key.split(".")
        name = parts[1] if parts[0] == "arms" else parts[2] if "shots" in parts else parts[-1]
        if key == "name":
            continue
        said = [
            line for line in lines if line.strip().startswith(f"{name}:") or f"{{{name}:" in line
        ]
        assert any("#" in line for line in said), key


def test_the_judge_that_a_comment_advises_exists() -> None:
    text = (EXAMPLES / "hw6.yaml").read_text(encoding="utf-8")
    (advised,) = re.findall(r"# rules\. With a GPU: (\S+)", text)
    assert judges.build(advised).name.startswith("qwen3guard")


@pytest.mark.parametrize("name", BOTH)
def test_the_recipe_is_the_example(name: str) -> None:
    assert recipe_file(name).read_text("utf-8") == (EXAMPLES / f"{name}.yaml").read_text("utf-8")


def _paths(name: str, data: Path) -> list[str]:
    found = [f"tasks.gsm8k.path={data / 'gsm8k'}", f"tasks.ailuminate.path={data / CSV}"]
    if name == "hw6":
        path = data / "xstest" / "xstest_prompts.csv"
        found += [f"tasks.{one}.path={path}" for one in ("over_refusal", "contrast")]
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", BOTH)
def test_both_are_checked_and_planned(
    name: str, model: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"model={model}", *_paths(name, shared_data)]
    file = str(EXAMPLES / f"{name}.yaml")
    assert call(["run", file, "--dry-run", "--runs-dir", str(tmp_path), *overrides]) == 0
    page = capsys.readouterr().out.split("\nChecked")[0].split("\nNot checked")[0]
    assert page.count("\n") <= 60, "a page at 80 columns, not a wall"
    said = " ".join(page.split())
    items, steps = {"gsm8k": 264, "ailuminate": 240}, 1869  # all 7,473, four at a time
    if name == "hw6":
        items = {"gsm8k": 1319, "ailuminate": 1200, "over_refusal": 250, "contrast": 200}
        steps = 1245
    measured = ", ".join(f"{task} ({count} items)" for task, count in items.items())
    assert f"Measured: {measured}" in said
    assert f"{steps} steps of 4 examples" in said
    assert call(["plan", file, "--model", model, "--gpus", "1x24GiB", "--dry-run"]) == 0
    assert f"model={model}" in "".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def qwen(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2, as small as the real vocabulary and 4-bit kernels let it be."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        eos_token_id=151645, pad_token_id=151643,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5").save_pretrained(folder)
    return folder


def _first_rows(shared: Path, folder: Path) -> Path:
    """The first rows of the real data."""
    for name, count in (("gsm8k/train.jsonl", 12), ("gsm8k/test.jsonl", 4)):
        with (shared / name).open(encoding="utf-8") as file:
            text = "".join(islice(file, count))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in (CSV, "xstest/xstest_prompts.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((shared / name).read_bytes())
    return folder


SMALL = {
    "hw6_faithful": ["train.bf16=false"],
    # A random model ends no answer, solves no problem and finds every token surprising.
    "hw6": [
        "arms.self.data=[{selfgen: {samples: 2, unsolved: gold}}]",
        "arms.masked.loss=[{token_mask: {max_perplexity: 1.0e+9}}]",
        "arms.scaled.weights=[{scale: {factors: [0.5]}}]",
        "tasks.over_refusal.limit=2",
        "tasks.contrast.limit=2",
        "train.checkpoints=1",
    ],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", BOTH)
def test_both_run_on_a_small_model_with_the_real_tokenizer(
    name: str, qwen: Path, shared_data: Path, tmp_path: Path
) -> None:
    data = _first_rows(shared_data, tmp_path)
    kept = tmp_path / "kept.jsonl"
    rows = [{"prompt": f"How do I plant {one}?", "completion": "In spring."} for one in "abcd"]
    kept.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    overrides = [
        f"model={qwen}", *_paths(name, data), *SMALL[name], "tasks.gsm8k.limit=2",
        "tasks.ailuminate.limit=2", "answer.sampling.max_new_tokens=4", "answer.repeats=1",
        "train.max_steps=2", "train.save_steps=1", "train.gradient_accumulation_steps=2",
    ]  # fmt: skip
    if name == "hw6":
        overrides += [
            f"arms.replay.data=[{{replay: {{share: 0.2, source: file, path: {kept}}}}}]",
            "train.keep_shortest=1.0",
        ]
    loaded = load.load(EXAMPLES / f"{name}.yaml", overrides)
    folder = tmp_path / "run"
    results = study.run(loaded, folder, Silent())
    assert results is not None
    arms = {"hw6_faithful": {"base", "sft"}}.get(
        name, {"base", "sft", "replay", "self", "masked", "scaled"}
    )
    assert {cell.arm for cell in results.cells} == arms
    for arm in arms - {"base", "scaled"}:
        steps = {cell.step for cell in results.cells if cell.arm == arm}
        assert steps == ({1, 2} if name == "hw6_faithful" else {2})
    cell = results.cell("base", 0, "gsm8k")
    assert set(cell.read_as) == {"tolerant", "strict", "harness_strict", "harness_flexible"}
    preview = (folder / "data" / "sft" / "mask_preview.txt").read_text("utf-8")
    if name == "hw6_faithful":
        assert preview.startswith("⟦\n<|im_start|>user\nQ: ")
        assert preview.rstrip().endswith("<|im_end|>⟧")
        assert preview.count("⟦") == 1
        assert "You are" not in preview
    else:
        assert "You are" in preview
        assert preview.rpartition("<|im_start|>assistant\n")[2].startswith("⟦")
    assert "The same replies, four readings" in (folder / "report" / "report.md").read_text("utf-8")
    assert "The same replies, four readings" in (folder / "report" / "index.html").read_text(
        "utf-8"
    )

"""`init`, `import` and `new-…` write what works: studies that plan, plug-ins whose tests pass."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from holdfast import cli, study
from holdfast.cli.sections import margin_for
from holdfast.config import Study, load
from holdfast.config.imported import imported

SCHEMA = "study.schema.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = {"train": range(100, 140), "test": range(30), "words": range(40)}
    for name, numbers in rows.items():
        lines = [
            {"prompt": f"{name}: and after {n}?", "completion": "w" if name == "words" else str(n)}
            for n in numbers
        ]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.call(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def _made(file: Path) -> Study:
    """The study, once its rule is known to be one that can be met."""
    made = load.load(file)
    plan = study.plan(made, file.parent / "runs" / made.name)
    from holdfast.analysis.selection.from_run import power

    for one in power(plan):
        assert one.margins[-1] <= -one.need.margin + 1e-9, "met with three lost"
    return made


def test_flags_answer_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "sub").mkdir()
    code, out, _ = _call(
        capsys, "init", "sub/mine.yaml", "--model", "lab", "--data", "train.jsonl,test.jsonl",
        "--keep", "lab_refuse", "--keep", "words.jsonl,lab_help",
    )  # fmt: skip
    assert code == 0
    assert out.rstrip().endswith("Next: holdfast run sub/mine.yaml --dry-run")
    text = (here / "sub" / "mine.yaml").read_text("utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA}\n")
    assert json.loads((here / "sub" / SCHEMA).read_text("utf-8"))["$id"].startswith("urn:holdfast")
    assert "../train.jsonl" in text, "from the study's folder"
    made = _made(here / "sub" / "mine.yaml")
    assert (made.name, made.targets, list(made.tasks)[1:]) == (
        "mine", ("train",), ["lab_refuse", "words", "lab_help"],
    )  # fmt: skip
    extra = made.tasks["train"].model_extra or {}
    assert extra["grader"] == "number"
    assert (made.tasks["words"].model_extra or {})["grader"] == "exact"
    assert set(made.ship.retain) == {"lab_refuse", "words", "lab_help"}
    assert made.ship.retain["words"] < made.ship.retain["lab_refuse"], "fewer items, wider margin"


def test_gpus_say_whether_it_fits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("--model", "Qwen/Qwen2.5-7B-Instruct", "--gpus", "2x24GiB")
    code, out, _ = _call(capsys, "init", "study.yaml", *line)
    assert code == 0 and "On 2x24GiB: data parallel" in out
    made = load.load(here / "study.yaml")
    assert (made.name, made.hardware.gpus, made.train.method) == ("gsm8k", "2x24GiB", "auto")
    code, out, _ = _call(capsys, "init", "other.yaml", "--model", "lab", "--gpus", "2x24Gb4")
    assert (code, out) == (3, "") and not (here / "other.yaml").exists()
    code, out, _ = _call(capsys, "init", "cpu.yaml", "--recipe", "lab", "--gpus", "cpu")
    assert code == 0 and load.load(here / "cpu.yaml").hardware.device == "cpu"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--data", "train.jsonl"], "another that measures"),
        (["--data", "none.jsonl,test.jsonl"], "no such file"),
        (["--data", "gsm9k"], "did you mean 'gsm8k'"),
        (["--data", "gsm_danger"], "never trained on"),
        (["--data", "lab_math,test.jsonl"], "its own test"),
        (["--keep", "xstest"], "paul-rottger"),
        (["--keep", "lab_help,lab_help"], "named twice"),
        (["--model", "lab", "--keep", "lab_math"], "what it learns"),
        (["--recipe", "lab", "--keep", "lab_help"], "without --recipe"),
        (["--recipe", "hw7"], "hw6_faithful"),
    ],
)
def test_what_cannot_be_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    code, out, err = _call(capsys, "init", *more)
    assert (code, out) == (3, "") and said in err and "→" in err
    assert not (here / "study.yaml").exists() and not (here / SCHEMA).exists()


def test_recipes_find_data_that_is_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data").mkdir()
    (here / "data" / "xstest_prompts.csv").write_text("id,prompt,type\n", encoding="utf-8")
    code, out, _ = _call(capsys, "init", "deep/study.yaml", "--model", "a/b", "--recipe", "hw6")
    assert code == 0
    text = (here / "deep" / "study.yaml").read_text("utf-8")
    assert text.count("path: ../data/xstest_prompts.csv") == 2
    assert "xstest" not in out and "mlcommons/ailuminate" in out and "from the hub" in out
    assert "examples/" not in text, "nothing that only a checkout has"
    assert load.load(here / "deep" / "study.yaml").model.id == "a/b"


def test_a_stranger_s_schema_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / SCHEMA).write_text("{}", encoding="utf-8")
    code, _, err = _call(capsys, "init", "--recipe", "lab")
    assert (code, "no schema of Holdfast" in err) == (3, True)
    assert ((here / SCHEMA).read_text(), (here / "study.yaml").exists()) == ("{}", False)


def test_a_terminal_is_asked_and_a_pipe_is_not(here: Path) -> None:
    line = [sys.executable, "-m", "holdfast", "init", "asked.yaml"]
    parent, child = pty.openpty()
    answers = b"lab\nno_such_task\n\nlab_help\nrtx9999\n\n"
    os.write(parent, answers)
    done = subprocess.run(line, stdin=child, stdout=child, stderr=subprocess.PIPE, timeout=120)
    os.close(child), os.close(parent)
    assert done.returncode == 0, done.stderr
    said = done.stderr.decode()
    assert "no_such_task" in said and "rtx9999" in said, "asked again"
    made = load.load(here / "asked.yaml")
    assert (made.model.id, made.targets, list(made.tasks)[1:]) == (
        "lab",
        ("lab_math",),
        ["lab_help"],
    )
    line[-1] = "piped.yaml"
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert done.returncode == 0 and load.load(here / "piped.yaml").name == "hw6"


@pytest.mark.parametrize("items", [1, 8, 30, 100, 200, 1000, 10_000])
def test_margins_can_be_met(items: int) -> None:
    found = margin_for("x", items)
    if found is None:
        assert items < 10
    else:
        assert -0.5 <= found[0] <= -0.02 and f"{items:,} items" in found[1]


AXOLOTL = """
base_model: NousResearch/Llama-3.2-1B
model_type: LlamaForCausalLM
load_in_8bit: false
load_in_4bit: true
adapter: lora
datasets:
  - {path: train.jsonl, type: alpaca, ds_type: json, split: train}
  - {path: someone/set, name: main, type: {field_instruction: q, field_output: a, format: "<{q}>"}}
  - {path: json, data_files: [words.jsonl], type: chat_template, field_messages: conversations}
val_set_size: 0
lora_dropout: 0
lora_r: 32
lora_alpha: 16
lora_target_linear: true
lora_target_modules:
sequence_len: 1024
sample_packing: true
micro_batch_size: 2
num_epochs: 3
optimizer: adamw_bnb_8bit
learning_rate: 2e-4
train_on_inputs: false
gradient_checkpointing: true
flash_attention: true
warmup_ratio: 0.1
evals_per_epoch: 4
seed: 7
wandb_project: mine
wandb_entity:
special_tokens: {pad_token: "<pad>"}
nobody_knows: 3
eval_steps: 5
"""


def test_axolotl_is_translated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "ax.yaml").write_text(AXOLOTL, encoding="utf-8")
    line = ("import", "ax.yaml", "mine.yaml", "--test", "test.jsonl", "--keep", "lab_help")
    code, out, _ = _call(capsys, *line)
    assert code == 0 and "To be filled in" not in out
    made = load.load(here / "mine.yaml")
    assert (made.model.id, made.model.attn_implementation, made.seeds) == (
        "NousResearch/Llama-3.2-1B", "flash_attention_2", (7,),
    )  # fmt: skip
    train = made.train
    assert (train.method, train.lora.r, train.lora.alpha, train.lora.dropout) == (
        "qlora",
        32,
        16,
        0,
    )
    assert (train.num_train_epochs, train.max_length, train.packing, train.overlong) == (
        3, 1024, True, "drop",
    )  # fmt: skip
    assert (train.gradient_accumulation_steps, train.lr_scheduler_type) == (1, "cosine"), (
        "what Axolotl means where it is silent"
    )
    extra = made.tasks["mine"].model_extra or {}
    places = [one.get("path", one.get("hub")) for one in extra["train_path"]]
    assert places == [str(here / "train.jsonl"), "someone/set", str(here / "words.jsonl")]
    assert extra["train_path"][1]["columns"] == {"instruction": "q", "output": "a"}
    assert list(made.track[0]) == ["wandb"]
    for lost in ("special_tokens", "nobody_knows", "evals_per_epoch", "eval_steps", "type.format"):
        assert f"{lost}: " in out and f"{lost}: " in (here / "mine.yaml").read_text("utf-8")


FACTORY = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_target: q_proj,v_proj
dataset: ours, hers, nowhere
template: llama3
cutoff_len: 512
max_samples: 20
output_dir: saves/x
report_to: none
bf16: true
flash_attn: auto
enable_thinking: false
warmup_steps: 0
"""


def test_llama_factory_is_translated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = {
        "ours": {"file_name": "../train.jsonl"},
        "hers": {"hf_hub_url": "a/b", "columns": {"messages": "talk"}, "tags": {}, "ranking": True},
    }
    (here / "data").mkdir()
    (here / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (here / "lf.yaml").write_text(FACTORY, encoding="utf-8")
    code, out, _ = _call(capsys, "import", "lf.yaml")
    assert code == 0
    made = load.load(here / "study.yaml")
    assert (made.name, made.train.lora.alpha, made.train.lora.dropout) == ("lf", 32, 0)
    assert (made.train.learning_rate, made.train.per_device_train_batch_size) == (5e-5, 8)
    assert made.train.lora.target_modules == ("q_proj", "v_proj")
    assert made.model.thinking is False
    sources = (made.tasks["mine"].model_extra or {})["train_path"]
    assert [one.get("count") for one in sources] == [20, 20, None]
    assert sources[1]["columns"] == {"messages": "talk"}
    assert sources[2]["path"].endswith("FILL-IN-nowhere.jsonl"), "so that no run leaves it out"
    assert "'nowhere'" in out and "hers.ranking" in out and "TEST.jsonl" in str(made.tasks)
    for key in ("stage", "do_train", "template", "output_dir", "cutoff_len"):
        assert f"  {key}: " in out


@pytest.mark.parametrize("text", [AXOLOTL, FACTORY])
def test_no_key_is_left_without_a_word(text: str, here: Path) -> None:
    values = yaml.safe_load(text)
    found = imported(values, here / "x.yaml")
    said = [key for key, *_ in (*found.taken, *found.lost)] + found.off
    for key in values:
        names = {key, *([] if key != "dataset" else ["dataset: ours"])}
        names |= {"datasets[1]"} if key == "datasets" else set()
        assert names & set(said), key
    assert set(found.train) <= set(Study.model_fields["train"].annotation.model_fields)  # type: ignore[union-attr]


def test_a_foreign_file_is_told_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "lf.yaml").write_text(FACTORY, encoding="utf-8")
    code, _, err = _call(capsys, "run", "lf.yaml")
    assert code == 3 and "holdfast import lf.yaml study.yaml" in err
    for text in ("a: 1\n", "- 1\n", "a: [\n"):
        (here / "no.yaml").write_text(text, encoding="utf-8")
        code, out, err = _call(capsys, "import", "no.yaml")
        assert (code, out) == (3, "") and "→" in err and not (here / "study.yaml").exists()
    code, _, err = _call(capsys, "import", "gone.yaml")
    assert code == 3 and "cannot be read" in err


NEW = [("new-task",), ("new-judge",)]
NEW += [("new-method", "--list", entry) for entry in ("data", "loss", "weights", "ask")]


def test_new_plug_ins_pass_their_tests(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usages = {}
    for number, (command, *more) in enumerate(NEW):
        name = f"mine_{number}"
        code, out, _ = _call(capsys, command, name, *more, "--json")
        assert code == 0
        usages[name] = yaml.safe_load(json.loads(out)["study"])
        assert json.loads(out)["next"].endswith(f"pytest test_{name}.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "."],
        capture_output=True, text=True, timeout=200, cwd=here,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout
    arms = {name: usages[name]["arms"][name] for name in ("mine_2", "mine_3", "mine_4", "mine_5")}
    measured = {
        "lab_math": {"role": "target", "items": 4, "train_items": 8},
        "lab_refuse": {"items": 4, "judge": "mine_1.py:Mine1"},
        **usages["mine_0"]["tasks"],
    }
    whole = {"name": "x", "model": "lab", "seeds": [1], "arms": arms, "tasks": measured}
    arms["mine_5"]["from"] = arms["mine_4"]["from"] = "mine_2"
    assert study.plan(load.load(whole), here / "runs" / "x").arms


@pytest.mark.parametrize("name", ["Mine", "1a", "a-b", "class", "json", "../a", "é"])
def test_names_that_are_none(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = _call(capsys, "new-task", name)
    assert (code, out) == (3, "") and "for example: my_" in err
    assert not list(here.glob("*.py"))


def test_nothing_is_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "test_mine.py").write_text("x", encoding="utf-8")
    code, _, err = _call(capsys, "new-task", "mine")
    assert (code, "exists already" in err, (here / "mine.py").exists()) == (3, True, False)


@pytest.mark.parametrize("place", ["ONLINE", "sets"])
def test_a_folder_of_sets_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (here / "sets").mkdir()
    (here / "their.yaml").write_text(
        f"model_name_or_path: a/b\nstage: sft\ndataset: x\ndataset_dir: {place}\n"
    )
    code, out, _ = _call(capsys, "import", "their.yaml", "mine.yaml")
    assert code == 0
    assert ("dataset_dir" in out) == (place == "ONLINE"), "what is not here is named"
    found = imported(yaml.safe_load((here / "their.yaml").read_text()), here / "their.yaml")
    assert ("dataset_dir" in dict(found.taken)) == (place == "sets")

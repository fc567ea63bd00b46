"""Is what is given away what was chosen and measured, whole or not at all, honestly labelled?"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.paths import ROOT

from holdfast import cli, engines, models, study
from holdfast.comparison import REQUEST
from holdfast.config import load
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import FolderError, HoldfastError, MissingDependency, UsageError
from holdfast.models import ModelRef, files, gguf_record
from holdfast.models.peft_adapter import scale_adapter
from holdfast.progress import Silent
from holdfast.runs import run_folder, store
from holdfast.shipping import ship
from holdfast.shipping.export import export
from holdfast.types import Example

# the three forms


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA whose change is large enough to see."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM",
        alpha_pattern={"q_proj": 4}, init_lora_weights=False,
    )  # fmt: skip
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    return folder


def _logits(ref: ModelRef, scale: float = 1.0) -> Any:
    import torch
    from peft import PeftModel

    model = models.load_model(ref, torch.float32, "cpu")
    if ref.adapter:
        model = PeftModel.from_pretrained(model, ref.adapter)
        if scale != 1:
            scale_adapter(model, scale)
    with torch.inference_mode():
        return model.eval()(torch.arange(5, 15)[None]).logits


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_an_export_says_what_was_measured(
    tiny_model: Path, adapter: Path, tmp_path: Path, scale: float
) -> None:
    import torch

    ref = ModelRef(str(tiny_model), None, str(adapter), False, scale)
    wanted = _logits(ref, scale)
    assert (wanted - _logits(ModelRef(str(tiny_model)))).abs().max() > 0.1
    for form in ("adapter", "merged"):
        folder = tmp_path / form
        folder.mkdir()
        made = export(ref, form, folder)
        torch.testing.assert_close(_logits(made), wanted, atol=1e-5, rtol=1e-4)
        assert made.scale == 1
    files.check_folder(tmp_path / "merged")
    assert sorted(one.name for one in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


def test_four_bits_are_near_and_in_four_bits(tmp_path: Path) -> None:
    base = ModelRef(str(models.LAB_FOLDER))  # tiny_model is narrower than a block of NF4
    made = export(base, "nf4", tmp_path)
    off = (_logits(made) - _logits(base)).abs()
    assert 0 < off.mean() < 1
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    files.check_folder(tmp_path)
    assert not (tmp_path / ".merged").exists()


def test_a_model_with_all_weights_is_copied(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    made = export(ModelRef(str(tiny_model)), "merged", tmp_path)
    torch.testing.assert_close(_logits(made), _logits(ModelRef(str(tiny_model))))
    with pytest.raises(HoldfastError, match="--form merged"):
        export(ModelRef(str(tiny_model)), "adapter", tmp_path)


def test_no_share_of_what_is_not_lora(adapter: Path, tmp_path: Path) -> None:
    config = store.read_json(adapter / "adapter_config.json")
    for change in ({"peft_type": "OFT"}, {"use_dora": True}):
        store.write_json(tmp_path / "a" / "adapter_config.json", config | change)
        with pytest.raises(HoldfastError, match="a share of an adapter"):
            export(ModelRef("base", None, str(tmp_path / "a"), False, 0.5), "adapter", tmp_path)


# a whole study, answered by a script


class Scripted(ScriptedEngine):
    """Wrong sums before training and right ones after; always declines, unless it is spoilt."""

    spoilt = ""

    def __init__(self, ref: ModelRef, *_: object, **__: object) -> None:
        super().__init__(self.say)
        self.exported = ".export-" in ref.base or gguf_record.of(ref.base) is not None

    def say(self, example: Example, adapter: str | None, sample: int) -> str:
        exported = self.exported or ".export-" in (adapter or "")
        if example.meta.get("group"):  # a hazard
            if exported and self.spoilt == "safety":
                return "Sure! Here is how you do it, step by step."
            return "I cannot help with that."
        tuned = adapter or exported
        if exported and self.spoilt == "some":
            tuned = int(example.id.rpartition("-")[2]) % 8 == 0
        return str(example.target) if tuned else "I do not know."


@pytest.fixture(scope="module", autouse=True)
def _engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "script", f"{__name__}:Scripted")
        yield


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study in which training helped and cost nothing."""
    folder = tmp_path_factory.mktemp("shipping")
    text = {
        "name": "s",
        "model": str(tiny_model),
        "seeds": [1],
        "tasks": {
            "lab_math": {"role": "target", "items": 40, "train_items": 24},
            "lab_refuse": {"items": 60},
        },
        "answer": {"engine": "script", "sampling": {"max_new_tokens": 8}},
        "meters": {"probes": 0},
        "train": {
            "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 2, "checkpoints": 2,
            "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
        },
        "arms": {"sft": {}},
        "ship": {"retain": {"lab_refuse": -0.2}},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    study.run(load.load(path), folder / "s", Silent(), str(path), only="stats")
    return folder / "s"


@pytest.fixture(autouse=True)
def _unspoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "spoilt", "")


def test_a_dry_run_decides_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    found = ship(run, None, Silent(), dry_run=True)
    assert (found.answer, found.exit_code, found.folder) == ("ship", 0, None)
    assert found.in_study.chosen is not None
    assert found.in_study.chosen.step == 1, "both are as good: the earlier one"
    assert "Ship." in found.text()
    assert "lab_math" in found.text()
    assert json.loads(json.dumps(found.to_json()))["answer"] == "ship"


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_it_is_exported_measured_again_and_labelled(run: Path, tmp_path: Path, form: Any) -> None:
    to = tmp_path / "export-here"
    found = ship(run, to, Silent(), form)
    assert (found.answer, found.exit_code, found.folder) == ("ship", 0, to)
    assert found.exported is not None
    assert [one.name for one in tmp_path.iterdir()] == ["export-here"], "nothing is left over"
    card = (to / "README.md").read_text(encoding="utf-8")
    for words in (
        "May it be shipped? Ship", "# s: sft, seed 1, step 1", "gains on lab_math",
        "refusal", "none of them is a safety grade", "## Loading", "check the licence",
        "plain fine-tuning", "| lab_math (target) |", "100.0", "n 40", "allow for that choice",
    ):  # fmt: skip
        assert words in card, words
    assert (to / "study.yaml").read_text() == (run / "study.yaml").read_text()
    decision = json.loads((to / "decision.json").read_text())
    assert decision["exported"]["answer"] == "ship"
    assert (to / "adapter_model.safetensors").is_file() == (form == "adapter")
    assert (to / "model.safetensors").is_file() == (form == "merged")
    assert not list(to.rglob("replies*"))


CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_code_of_a_card_runs(run: Path, tmp_path: Path, form: Any) -> None:
    """As it stands there, but for the path that its reader puts in."""
    to = tmp_path / "export-here"
    assert ship(run, to, Silent(), form).folder == to
    card = (to / "README.md").read_text(encoding="utf-8")
    (code,) = CODE.findall(card)
    names: dict[str, Any] = {}
    exec(compile(code.replace("path/to/this/folder", str(to)), "card", "exec"), names)
    ids = names["tokenizer"]("2 + 3", return_tensors="pt")["input_ids"]
    assert names["model"](ids).logits.shape[:2] == ids.shape
    line = re.findall(r"^vllm serve .*$", card, re.M)[0]
    assert ("--enable-lora" in line) == (form == "adapter")
    assert "path/to/this/folder" in line


CONVERTER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fixtures.tiny_gguf import tiny_llama, write
folder, target = Path(sys.argv[1]), sys.argv[sys.argv.index("--outfile") + 1]
if not (folder / "model.safetensors").is_file():
    sys.exit("no weights")
write(tiny_llama(), Path(target), "F16")
"""
SERVER = """\
#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from holdfast.lab import TARGET_STEPS
from holdfast.lab.problems import problems
known = {{one.question: one.human for one in problems("test", 40, TARGET_STEPS)}}

class Asked(BaseHTTPRequestHandler):
    def do_GET(self):
        self.say({{"status": "ok", "data": [{{"id": "model"}}]}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = known.get(body["messages"][-1]["content"], "I cannot help with that.")
        choice = {{"index": 0, "finish_reason": "stop",
                  "message": {{"role": "assistant", "content": text}}}}
        usage = {{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        self.say({{"choices": [choice], "usage": usage, "model": body["model"]}})

    def say(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Asked).serve_forever()
"""


@pytest.fixture
def llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of llama.cpp with a converter that writes another model, and no server."""
    folder = tmp_path / "llama.cpp"
    (folder / "build" / "bin").mkdir(parents=True)
    text = CONVERTER.format(tests=str(ROOT / "tests"))
    (folder / "convert_hf_to_gguf.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("server", [False, True], ids=["written out", "by its server"])
def test_one_gguf_file_is_measured_as_it_is(
    run: Path, tmp_path: Path, llama_cpp: Path, server: bool
) -> None:
    if server:
        program = llama_cpp / "build" / "bin" / "llama-server"
        program.write_text(SERVER.format(python=sys.executable), encoding="utf-8")
        program.chmod(0o755)
    found = ship(run, tmp_path / "export-here", Silent(), "gguf")
    assert (found.answer, found.folder) == ("ship", tmp_path / "export-here")
    assert sorted(one.name for one in (tmp_path / "export-here").iterdir()) == [
        "Modelfile", "README.md", "decision.json", "model.gguf", "study.yaml",
    ]  # fmt: skip
    card = (tmp_path / "export-here" / "README.md").read_text(encoding="utf-8")
    by = "llama-server" if server else "its weights written out, by transformers"
    assert f"As exported it was measured by {by}." in card
    assert "ollama create s -f Modelfile" in card
    modelfile = (tmp_path / "export-here" / "Modelfile").read_text(encoding="utf-8")
    assert "FROM ./model.gguf\n" in modelfile
    (code,) = CODE.findall(card)
    names: dict[str, Any] = {}
    code = code.replace("path/to/this/folder", str(tmp_path / "export-here"))
    exec(compile(code, "card", "exec"), names)
    assert names["model"].config.hidden_size == 32


def test_without_a_converter_nothing_is_left(
    run: Path, tmp_path: Path, llama_cpp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = llama_cpp / "convert_hf_to_gguf.py"
    converter.write_text("import sys\nsys.exit('Model Odd is not supported')\n", "utf-8")
    with pytest.raises(HoldfastError, match="Model Odd is not supported"):
        ship(run, tmp_path / "export-here", Silent(), "gguf")
    converter.unlink()
    monkeypatch.delattr("holdfast.shipping.export")  # no weights are merged before it is looked for
    with pytest.raises(MissingDependency, match=r"convert_hf_to_gguf.py(.|\n)*LLAMA_CPP"):
        ship(run, tmp_path / "export-here", Silent(), "gguf")
    assert not (tmp_path / "export-here").exists()


@pytest.mark.parametrize(
    ("spoilt", "answer"), [("safety", "do not ship"), ("some", "not enough evidence")]
)
def test_what_the_export_lost_is_not_given_away(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str, answer: str
) -> None:
    monkeypatch.setattr(Scripted, "spoilt", spoilt)
    found = ship(run, tmp_path / "export-x", Silent())
    assert (found.in_study.answer, found.answer, found.exit_code) == ("ship", answer, 2)
    assert found.folder is None
    assert not list(tmp_path.iterdir())
    found = ship(run, tmp_path / "export-x", Silent(), anyway=True)
    assert (found.answer, found.exit_code) == (answer, 2)
    card = (tmp_path / "export-x" / "README.md").read_text(encoding="utf-8")
    assert "Exported against this answer" in card


def test_what_would_be_pushed_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["ship", str(run), "--push", "me/mine"]
    to = ["--to", str(tmp_path / "export-here")]
    for words, said in (
        (line, "add --to"), ([*line, *to, "--dry-run"], "without --dry-run"),
        (["ship", str(run), *to, "--yes"], "--yes goes with --push"),
        (["ship", str(run), *to, "--push", "mine"], "owner/name"),
        (["ship", str(run), *to, "--format", "ggml"], "ggml"),
    ):  # fmt: skip
        assert cli.call(words) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "export-here").exists()
    assert cli.call([*line, *to, "--format", "safetensors"]) == 0
    out = capsys.readouterr().out
    assert "README.md" in out and "adapter_model.safetensors" in out
    assert "Would be sent to" in out and "Sent to" not in out
    assert f"({run.parent}" in out or "study.yaml names places" in out


def test_one_checkpoint_can_be_named(run: Path, tmp_path: Path) -> None:
    found = ship(run, None, Silent(), dry_run=True, checkpoint="sft/seed1/checkpoint-2")
    assert found.in_study.chosen is not None
    assert found.in_study.chosen.step == 2
    with pytest.raises(UsageError, match="did you mean 'sft/seed1/checkpoint-2'"):
        ship(run, None, Silent(), dry_run=True, checkpoint="sft/seed1/checkpoint2")


def test_usage(run: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with pytest.raises(FolderError, match="holds something already"):
        ship(run, full, Silent())
    with pytest.raises(UsageError, match="--dry-run"):
        ship(run, None, Silent())
    with pytest.raises(UsageError, match="did you mean 'merged'"):
        ship(run, tmp_path / "x", Silent(), "mergd")  # type: ignore[arg-type]
    with pytest.raises(FolderError, match="not a run folder"):
        ship(tmp_path, tmp_path / "x", Silent())
    assert (full / "mine").is_file()


def test_a_comparison_has_nothing_to_ship(tmp_path: Path) -> None:
    run_folder.open_run(tmp_path / "c")
    store.write_json(tmp_path / "c" / REQUEST, {})
    with pytest.raises(UsageError, match="is a comparison: nothing is chosen to ship"):
        ship(tmp_path / "c", None, Silent(), dry_run=True)


def test_an_unfinished_study_is_not_shipped(run: Path, tmp_path: Path) -> None:
    record = run / "readings" / "sft" / "seed1" / "checkpoint-2" / "lab_math"
    record.rename(record.with_name("away"))
    try:
        with pytest.raises(UsageError, match=r"not finished(.|\n)*holdfast run"):
            ship(run, None, Silent(), dry_run=True)
    finally:
        record.with_name("away").rename(record)


def test_deleted_weights_are_named(run: Path, tmp_path: Path) -> None:
    folder = run / "train" / "sft" / "seed1" / "checkpoint-1"
    folder.rename(folder.with_name("away"))
    try:
        with pytest.raises(UsageError, match="--rebuild 'train/sft/seed1'"):
            ship(run, tmp_path / "x", Silent())
    finally:
        folder.with_name("away").rename(folder)
    assert not list(tmp_path.iterdir())

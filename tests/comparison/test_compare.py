"""Does a comparison of models trained elsewhere measure what a study would, and refuse the rest?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.report import Page
from fixtures.stub_server import StubServer, status
from fixtures.tiny_gguf import tiny_llama, write

from holdfast import cli, comparison
from holdfast.analysis.lookup import final
from holdfast.analysis.results import Results, from_json
from holdfast.analysis.selection.rule import change_text
from holdfast.comparison import verdict
from holdfast.comparison.request import Request
from holdfast.errors import MissingDependency, ModelError, StudyError, Unreachable, UsageError
from holdfast.lab import model_folder
from holdfast.models import ModelRef, external, peft_adapter
from holdfast.models.external import ExternalModel
from holdfast.progress import Silent
from holdfast.report import write as html
from holdfast.report.words import percent
from holdfast.runs import run_folder, store

TASKS = ("--tasks", "lab_math,lab_refuse", "--limit", "8",
         "--set", "answer.sampling.max_new_tokens=8")  # fmt: skip


def make_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """A LoRA adapter with random weights, saved the way that PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, one in model.named_parameters():
        if "modules_to_save" in name:
            one.data += torch.randn_like(one) * 0.1
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models that somebody else might have made of the tiny one."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(tiny_model, folder / "tiny")
    make_adapter(folder / "tiny", folder / "lora", 1)
    make_adapter(folder / "tiny", folder / "head", 2, modules_to_save=["embed_tokens", "lm_head"])
    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(3)
    for one in other.parameters():
        one.data += torch.randn_like(one) * 0.05
    shutil.copytree(tiny_model, folder / "whole")
    other.save_pretrained(folder / "whole")
    return folder


def call(*words: object) -> int:
    return cli.call(["compare", *map(str, words)])


@pytest.fixture(scope="module")
def finished(models: Path) -> Path:
    """The folder of runs of a comparison of both kinds with their base."""
    runs = models / "runs"
    three = [models / one for one in ("tiny", "lora", "whole")]
    assert call(*three, *TASKS, "--name", "c", "--runs-dir", runs) == 0
    return runs


def results_of(folder: Path) -> Results:
    return from_json(store.read_json(folder / "stats" / "results.json"))


def records(folder: Path) -> dict[Path, int]:
    return {one: one.stat().st_mtime_ns for one in folder.rglob(store.RECORD)}


def test_it_is_a_study_without_training(finished: Path, models: Path) -> None:
    run = finished / "c"
    for name in ("replies/base/lab_math", "replies/base@2/lab_refuse", "replies/lora/lab_math",
                 "verdicts/whole/lab_refuse", "readings/lora/lab_refuse", "looks"):  # fmt: skip
        assert (run / name / store.RECORD).is_file(), name
    assert not any((run / name).exists() for name in ("train", "data", "budget", "study.yaml"))
    found = results_of(run)
    assert [one.name for one in found.arms] == ["base", "lora", "whole"]
    assert found.seeds == ()
    assert {one.role for one in found.tasks} == {"retained"}
    assert found.cell("lora", 0, "lab_math").diff is not None
    assert {one.task for one in found.noise} == {"lab_math", "lab_refuse"}
    assert found.verdict.startswith("lora ")
    assert "whole " in found.verdict
    assert found.conditions["Chat template"] == "the same for all"
    assert found.conditions["Engine"] == "transformers (all models alike)"
    said = {
        name: (run / "replies" / name / "lab_math" / "replies.jsonl").read_text()
        for name in ("base", "lora", "whole")
    }
    assert len(set(said.values())) == 3, "each model speaks for itself"


def test_the_page_of_a_comparison(finished: Path) -> None:
    found = results_of(finished / "c")
    page = Page((finished / "c" / "report" / "index.html").read_text("utf-8"))
    assert page.open == []
    text = " ".join(page.text.split())
    assert found.verdict in text
    assert "trained elsewhere: adapter" in text
    for words in ("Base and tuned", "What is compared"):
        assert words in text
    for words in ("Along the way", "seed 1", "Nothing was trained", "to ship", "not trained here"):
        assert words not in text.partition("Statistics")[0]
    cell = found.cell("whole", 0, "lab_refuse")
    assert " ".join(percent(cell.score.mean).split()) in text
    markdown = (finished / "c" / "report" / "report.md").read_text("utf-8")
    assert "## Base and tuned" in markdown
    assert "## Along the way" not in markdown
    assert html.render(found).count("<h2") == html.render(found).count("</h2>")


def test_nothing_is_asked_twice_and_the_rule_is_put_anew(
    finished: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("holdfast.models.load_model", never)
    line = [*(models / one for one in ("tiny", "lora", "whole")), *TASKS, "--name", "c",
            "--runs-dir", finished]  # fmt: skip
    before = records(finished / "c" / "replies")
    assert call(*line, "--retain", "lab_math=-0.99", "--json") == 0
    made = json.loads(capsys.readouterr().out)["decision"]
    assert made["answer"] == "kept"
    assert call(*line, "--retain", "lab_math=0.5", "--json") == 2
    made = json.loads(capsys.readouterr().out)["decision"]
    assert made["answer"] == "not kept"
    assert "lora gains less than 50 points on lab_math" in made["reason"]
    assert call(*line) == 0
    assert records(finished / "c" / "replies") == before


def test_several_tuned_share_one_base(finished: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "c", tmp_path / "c")
    before = records(tmp_path / "c" / "replies" / "base")
    three = [models / one for one in ("tiny", "lora", "head")]
    assert call(*three, *TASKS, "--name", "c", "--runs-dir", tmp_path) == 0
    assert records(tmp_path / "c" / "replies" / "base") == before
    assert [one.name for one in results_of(tmp_path / "c").arms] == ["base", "lora", "head"]


class Stopping(Silent):
    """Stops like Ctrl-C when a stage begins."""

    def __init__(self, at: str) -> None:
        self.at = at

    def enter(self, stage: str) -> None:
        if stage == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["replies/lora/lab_refuse", "readings/base/lab_math", "stats"])
def test_it_goes_on_where_it_was_stopped(
    finished: Path, models: Path, tmp_path: Path, at: str
) -> None:
    asked = Request(
        tuple(str(models / one) for one in ("tiny", "lora", "whole")), ("lab_math", "lab_refuse"),
        ("answer.sampling.max_new_tokens=8",), limit=8, name="c",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        comparison.run(asked, tmp_path, Stopping(at))
    kept = records(tmp_path / "c")
    outcome = comparison.run(asked, tmp_path, Silent())
    assert {path: at for path, at in records(tmp_path / "c").items() if path in kept} == kept
    for path in (finished / "c" / "readings").rglob("readings.jsonl"):
        again = tmp_path / "c" / path.relative_to(finished / "c")
        assert again.read_text() == path.read_text()
    assert outcome.results.cells == results_of(finished / "c").cells


def test_an_adapter_that_brings_modules_leaves_nothing_behind(
    finished: Path, models: Path, tmp_path: Path
) -> None:
    three = [models / one for one in ("tiny", "head", "lora")]
    assert call(*three, *TASKS, "--runs-dir", tmp_path, "--name", "c") == 0
    for task in ("lab_math", "lab_refuse"):
        after = (tmp_path / "c" / "replies" / "lora" / task / "replies.jsonl").read_text()
        alone = (finished / "c" / "replies" / "lora" / task / "replies.jsonl").read_text()
        assert after == alone


def test_the_first_model_may_be_named_and_compared_with_itself(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    line = [models / "tiny", f"same={models / 'tiny'}", *TASKS, "--runs-dir", tmp_path]
    assert call(*line, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "same and base are the same" in said
    assert "tiny-vs-same" in said
    assert "0 of " in said
    assert not list(tmp_path.iterdir())


def test_another_template_is_noted(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "whole", tmp_path / "other")
    template = (tmp_path / "other" / "chat_template.jinja").read_text()
    (tmp_path / "other" / "chat_template.jinja").write_text("Hello.\n" + template)
    line = [models / "tiny", tmp_path / "other", "--tasks", "lab_math", "--limit", 2]
    line += ["--set", "answer.sampling.max_new_tokens=2"]
    assert call(*line, "--runs-dir", tmp_path / "r") == 0
    found = results_of(tmp_path / "r" / "tiny-vs-other")
    assert "other: its chat template differs from base's" in " ".join(found.warnings)
    assert found.conditions["Chat template"] == "not the same for all"


def test_what_cannot_be_loaded_is_found_before_the_base_is_asked(
    models: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models / "whole", broken)
    (broken / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert call(models / "whole", broken, *TASKS, "--runs-dir", tmp_path / "r") == 3
    assert not list((tmp_path / "r").rglob("replies.jsonl"))


def test_json_and_report_again(finished: Path, models: Path, capsys: pytest.CaptureFixture) -> None:
    line = [*(models / one for one in ("tiny", "lora", "whole")), *TASKS, "--name", "c"]
    assert call(*line, "--runs-dir", finished, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {"schema", "name", "verdict", "tasks", "arms", "cells", "warnings", "report"} <= set(
        said
    )
    assert from_json({key: said[key] for key in said if key != "report"}).arms[1].name == "lora"
    assert call(*line, "--runs-dir", finished, "--json", "--dry-run") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["models"]["lora"]["form"] == "adapter"
    assert all(one["done"] for one in said["stages"])
    assert cli.call(["report", str(finished / "c"), "--replies", "1"]) == 0
    assert "Replies" in (finished / "c" / "report" / "index.html").read_text("utf-8")
    assert cli.call(["ship", str(finished / "c")]) == 3


def test_a_study_lends_its_tasks_and_its_rule(models: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: s\nmodel: lab\ntasks:\n  lab_math: {role: target, items: 4}\n  lab_refuse: {}\n"
        "  lab_help: {}\nship: {retain: {lab_refuse: -0.02}}\n"
    )
    asked = Request((str(models / "tiny"), str(models / "lora")), study=str(study),
                    tasks=("lab_refuse", "lab_math"))  # fmt: skip
    found = comparison.plan(asked, tmp_path)
    assert list(found.plan.study.tasks) == ["lab_refuse", "lab_math"]
    assert found.targets == ("lab_math",)
    assert found.plan.study.ship.retain == {"lab_refuse": -0.02}
    assert found.plan.tasks["lab_math"].items == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lab", "--tasks", "lab_math"], "at least one tuned model"),
        (["a.jsonl", "b.jsonl", "--replies"], "which tasks do these replies answer?"),
        (["lab", "lab", "--tasks", "lab_math", "--data", "d"], "goes with the default suite"),
        (["lab", "lab", "--tasks", "lab_mat"], "did you mean 'lab_math'"),
        (["lab", "lab", "--tasks", "lab_math", "--set", "train.epochs=1"], "no section 'train'"),
        (["lab", "lab", "--tasks", "lab_math", "--target", "lab_mth"], "did you mean 'lab_math'"),
        (["lab", "lab", "--tasks", "lab_math", "--retain", "lab_math"], "is no margin"),
        (["lab", "lab", "--tasks", "lab_math", "--retain", "x=-0.1"], "no task is called 'x'"),
        (["lab", "lab", "--tasks", "lab_math", "--retain", "lab_math=-2"], "is no share"),
        (["lab", "lab", "--tasks", "lab_math", "--name", "a b"], "name"),
        (["lab", "./nowhere", "--tasks", "lab_math"], "no such folder"),
        (["lab", "./nowhere.gguf", "--tasks", "lab_math"], ""),
        (["lab", "base=lab", "--tasks", "lab_math"], "'base' is what the first model is called"),
        (["lab", "http://host/v1", "--tasks", "lab_math"], "named by its address and its model"),
        (["http://u:secret@host/v1#m", "lab", "--tasks", "lab_math"], "no user, password"),
        (["lab", "http://host/v1#m", "--tasks", "lab_math"], "through hf and m through remote"),
    ],
)  # fmt: skip
def test_wrong_usage_is_three_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(*words, "--runs-dir", tmp_path / "r") == 3
    said = capsys.readouterr().err
    assert message in said
    assert "→" in said
    assert "secret" not in said
    assert not (tmp_path / "r").exists()


def test_an_adapter_that_does_not_fit(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "lora", tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"r": 8}
    config.write_text(json.dumps(settings))
    line = [models / "tiny", tmp_path / "lora", *TASKS, "--runs-dir", tmp_path / "r"]
    with pytest.raises(ModelError, match="cannot be applied: size mismatch"):
        comparison.run(
            Request((str(models / "tiny"), str(tmp_path / "lora")), ("lab_math",), limit=2),
            tmp_path / "x", Silent(),
        )  # fmt: skip
    assert call(*line) == 3
    assert not (tmp_path / "r").exists(), "told from its files, before anything is asked"


def test_an_adapter_of_another_base(models: Path, tmp_path: Path) -> None:
    base = external.find(str(models / "whole"))
    with pytest.raises(ModelError) as caught:
        external.find(str(models / "lora"), base)
    said = str(caught.value)
    assert str(models / "tiny") in said
    assert str(models / "whole") in said
    assert "--any-base" in caught.value.remedy
    one = external.find(str(models / "lora"), base, any_base=True)
    assert one.ref.base == str(models / "whole")
    assert "was trained on" in one.notes[0]
    alone = external.find(str(models / "lora"))
    assert alone.ref.base == str(models / "tiny"), "an adapter as BASE names its own"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/llama-3.2-1b-instruct", True),
        ("unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "/models/Llama-3.2-1B-Instruct", True),
        ("/root/.cache/huggingface/hub/models--Qwen--Qwen2.5-7B/snapshots/0a1b", "Qwen/Qwen2.5-7B",
         True),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", False),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", False),
    ],
)  # fmt: skip
def test_names_of_one_base(one: str, other: str, same: bool) -> None:
    assert peft_adapter.same_base(one, other) is same


def test_what_is_no_usable_adapter(models: Path, tmp_path: Path) -> None:
    base = external.find(str(models / "tiny"))

    def broken(name: str, **settings: object) -> Path:
        folder = tmp_path / name
        shutil.copytree(models / "lora", folder)
        config = folder / peft_adapter.SETTINGS
        config.write_text(json.dumps(json.loads(config.read_text()) | settings))
        return folder

    folder = broken("pickled")
    (folder / peft_adapter.WEIGHTS).rename(folder / "adapter_model.bin")
    for path, message in (
        (folder, "its weights are pickled"),
        (broken("prompts", peft_type="PROMPT_TUNING"), "no change of weights"),
        (broken("kindless", peft_type=None), "no change of weights"),
    ):
        with pytest.raises(ModelError, match=message):
            external.find(str(path), base)
    (broken("torn") / peft_adapter.SETTINGS).write_text("{")
    with pytest.raises(ModelError, match="is not whole"):
        external.find(str(tmp_path / "torn"), base)
    assert external.find(str(broken("silent", base_model_name_or_path=None)), base).notes
    two = external.find(str(broken("renamed", base_model_name_or_path="x/tiny")), base)
    assert external.identity(two) == external.identity(external.find(str(models / "lora"), base))


def test_an_adapter_whose_file_lacks_what_it_promises(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    shutil.copytree(models / "lora", tmp_path / "half")
    weights = load_file(tmp_path / "half" / peft_adapter.WEIGHTS)
    save_file(dict(list(weights.items())[2:]), tmp_path / "half" / peft_adapter.WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(models / "tiny")
    with pytest.raises(ModelError, match="missing adapter keys"):
        peft_adapter.load_adapter(model, str(tmp_path / "half"))


def test_an_adapter_from_the_hub(models: Path, tmp_path: Path) -> None:
    """The hub's cache, as a download would leave it."""
    kept = tmp_path / "models--me--my-lora"
    snapshot = kept / "snapshots" / ("0" * 40)
    shutil.copytree(models / "lora", snapshot)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    assert peft_adapter.from_hub("me/my-lora", None, tmp_path) == snapshot
    assert peft_adapter.from_hub("me/no-lora", None, tmp_path) is None
    assert peft_adapter.from_hub("/a/folder", None, tmp_path) is None


@pytest.mark.parametrize(
    ("said", "name", "form", "base", "revision"),
    [
        ("org/model", "model", "model", "org/model", None),
        ("org/model@v1.2", "model", "model", "org/model", "v1.2"),
        ("mine=org/model", "mine", "model", "org/model", None),
        ("org/base", "base", "model", "org/base", None),
        ("x=http://localhost:8000/v1#a/B-c", "x", "endpoint", "http://localhost:8000/v1#a/B-c",
         None),
        ("http://localhost:8000/v1?concurrency=2#a/B-c", "B-c", "endpoint",
         "http://localhost:8000/v1?concurrency=2#a/B-c", None),
    ],
)  # fmt: skip
def test_how_models_are_named(
    said: str, name: str, form: str, base: str, revision: str | None
) -> None:
    one = external.find(said)
    assert (one.name, one.form, one.ref.base, one.ref.revision) == (name, form, base, revision)
    assert "?" not in one.source


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/x/train/self/seed1126/checkpoint-60", "self-seed1126-checkpoint-60"),
        ("runs/x/train/sft/seed7/checkpoint-60/", "sft-seed7-checkpoint-60"),
        ("out\\math run\\checkpoint-60", "math-run-checkpoint-60"),
        ("checkpoint-60", "checkpoint-60"),
        ("./seed1", "seed1"),
        ("some/model", "model"),
        ("..", "model"),
    ],
)
def test_checkpoints_are_named_by_their_training(path: str, name: str) -> None:
    assert external.answers(path).name == name


def test_answers_are_no_model(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    with pytest.raises(ModelError, match="is a file of answers") as caught:
        external.find(str(file))
    assert "--replies" in caught.value.remedy


def test_a_folder_of_checkpoints_names_one(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = run / "train" / "sft" / "seed1"
    for step in (9, 10):
        shutil.copytree(models / "lora", training / f"checkpoint-{step}")
    (training / "checkpoint-11").mkdir()  # its weights were deleted
    (training / "checkpoint-x").mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    for folder in (training, run, run / "train"):
        with pytest.raises(ModelError, match="is a folder of checkpoints") as caught:
            external.find(str(folder))
        named = str(training / "checkpoint-10")
        assert caught.value.remedy == f"name one: {named}"
        assert external.find(named).form == "adapter"
    with pytest.raises(ModelError, match="has no config"):
        external.find(str(training / "checkpoint-11"))


def test_a_gguf_file_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    write(tiny_llama(), tmp_path / "a.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        external.find(str(tmp_path))
    assert "pip install" in caught.value.remedy


def test_which_gguf_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    write(tiny_llama(), tmp_path / "a.gguf")
    one = external.find(str(tmp_path))
    assert (one.form, one.name, one.source) == ("gguf", "a", str(tmp_path))
    assert Path(one.ref.base).parent == tmp_path / "cache" / "models"
    assert external.identity(one) == external.identity(external.find(str(tmp_path / "a.gguf")))
    with pytest.raises(Unreachable):
        external.find("org/model-GGUF/model-Q4_K_M.gguf")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="holds 2 GGUF files"):
        external.find(str(tmp_path))
    with pytest.raises(ModelError, match="no such file"):
        external.find(str(tmp_path / "c.gguf"))


@pytest.fixture
def servers() -> Iterator[tuple[str, str, StubServer]]:
    """Two models behind two servers; the second refuses everything."""
    with (
        StubServer(lambda body: "Sure, here you are.\n#### 5", model="plain") as base,
        StubServer(lambda body: "I'm sorry, but I can't help with that.", model="tuned") as tuned,
    ):
        yield f"{base.url}#plain", f"{tuned.url}#tuned", tuned


def test_endpoints_are_compared_like_models(
    servers: tuple[str, str, StubServer], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base, tuned, server = servers
    line = [base, tuned, *TASKS, "--runs-dir", tmp_path, "--json"]
    assert call(*line, "--retain", "lab_refuse=-0.02") == 0
    said = json.loads(capsys.readouterr().out)
    found = from_json({key: said[key] for key in said if key != "report"})
    assert found.conditions["Engine"] == "endpoint (all models alike)"
    assert "Chat template" not in found.conditions
    assert (found.cell("base", 0, "lab_refuse").score.mean) == 0.0
    assert (found.cell("tuned", 0, "lab_refuse").score.mean) == 1.0
    assert "tuned gained 100.0 points" in found.verdict
    asked = len(server.bodies)
    assert asked == 16
    assert call(*line) == 0
    assert len(server.bodies) == asked, "nothing is paid for twice"


def test_a_server_that_fails_is_one_and_what_came_is_kept(
    servers: tuple[str, str, StubServer], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base, tuned, server = servers
    line = [base, tuned.replace("#", "?retries=0#"), *TASKS, "--runs-dir", tmp_path]
    server.always = status(500, "out of order")
    assert call(*line) == 1
    assert "Traceback" not in capsys.readouterr().err
    kept = records(tmp_path / "plain-vs-tuned")
    assert any("base" in path.parts for path in kept)
    server.always = None
    assert call(*line) == 0
    now = records(tmp_path / "plain-vs-tuned")
    assert {path: at for path, at in now.items() if path in kept} == kept


def test_an_endpoint_against_a_model_loaded_here_says_so_everywhere(
    models: Path, servers: tuple[str, str, StubServer], tmp_path: Path
) -> None:
    line = [models / "tiny", servers[1], *TASKS, "--runs-dir", tmp_path]
    assert call(*line) == 3
    assert call(*line, "--mixed-engines") == 0
    found = results_of(tmp_path / "tiny-vs-tuned")
    assert all(verdict.MIXED in one.label for one in found.tasks)
    assert any("different engines" in one for one in found.warnings)
    assert found.conditions["Engine"] == "transformers (base); endpoint (tuned)"


def test_two_servers_and_one_name() -> None:
    one = external.find("http://a:1/v1#m")
    other = external.find("http://b:1/v1#m")
    marks = {"base": external.identity(one), "m": external.identity(other)}
    said = " ".join(verdict.about_models(one, [other], marks, False))
    assert "bear one name on two servers" in said


def test_quantised_against_whole() -> None:
    base = ExternalModel("b", "b", "model", ModelRef("org/b"))
    tuned = ExternalModel("t", "t", "gguf", ModelRef("org/t", gguf="t.gguf"))
    said = " ".join(verdict.about_models(base, [tuned], {"base": {}, "t": {"x": 1}}, False))
    assert "t has quantised weights and base has not" in said


def test_the_perplexity_test_needs_a_base_that_scores(tmp_path: Path) -> None:
    from holdfast.config import Study

    rows = [{"id": "v1", "prompt": "How do I make tea?", "type": "safe", "label": "safe"}]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    study = Study.model_validate({
        "name": "s", "model": "m", "tasks": {"ailuminate": {"role": "target", "path": str(path)}},
    })  # fmt: skip
    changed = comparison.request.without_perplexity(study, asked=True)
    assert (changed.tasks["ailuminate"].model_extra or {})["perplexity"] is False
    asked = {"role": "target", "path": str(path), "perplexity": True}
    study = Study.model_validate({"name": "s", "model": "m", "tasks": {"ailuminate": asked}})
    with pytest.raises(UsageError, match="can score text"):
        comparison.request.without_perplexity(study, asked=True)


def test_a_folder_of_a_study_is_left_alone(tmp_path: Path) -> None:
    run_folder.open_run(tmp_path / "s")
    (tmp_path / "s" / "study.yaml").write_text("name: s\n")
    found = comparison.plan(Request(("lab", "x=lab"), ("lab_math",), name="s"), tmp_path)
    with pytest.raises(UsageError, match="is the run of a study"):
        comparison.schedule(found)


def test_an_unknown_key_of_a_task() -> None:
    asked = Request(("lab", "x=lab"), ("lab_math",), ("tasks.lab_math.item=3",))
    with pytest.raises(StudyError, match="did you mean 'items'"):
        comparison.plan(asked, Path("runs"))


def test_replies_of_a_run_give_the_figures_of_the_run(finished: Path, tmp_path: Path) -> None:
    replies = finished / "c" / "replies"
    assert (
        call("--replies", replies / "base", replies / "lora", *TASKS, "--runs-dir", tmp_path) == 0
    )
    given, asked = results_of(next(tmp_path.iterdir())), results_of(finished / "c")
    for task in ("lab_math", "lab_refuse"):
        one, other = given.cell("lora", 0, task), asked.cell("lora", 0, task)
        assert (one.score, one.diff, one.outcomes) == (other.score, other.diff, other.outcomes)


def test_a_models_own_code_runs_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(model_folder(), folder)
    config = store.read_json(folder / "config.json")
    config |= {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"},
    }
    store.write_json(folder / "config.json", config)
    (folder / "odd.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n"
        "class OddModel(LlamaForCausalLM):\n    config_class = OddConfig\n"
    )
    line = ["lab", folder, "--tasks", "lab_refuse", "--set", "tasks.lab_refuse.items=4",
            "--runs-dir", tmp_path / "r"]  # fmt: skip
    assert call(*line) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "custom code" in said
    assert "--trust-remote-code" in said
    assert not (tmp_path / "ran").exists()
    assert call(*line, "--trust-remote-code") == 0
    assert (tmp_path / "ran").exists()


def test_a_benchmark_by_its_name_in_the_harness() -> None:
    with pytest.raises(StudyError, match="no task is called 'hellaswagg'") as caught:
        comparison.plan(Request(("lab", "x=lab"), ("hellaswagg",)), Path("runs"))
    assert "harness:NAME" in caught.value.remedy
    with pytest.raises(StudyError, match=r"no task 'arc_eazy' \(did you mean 'arc_easy'"):
        comparison.plan(Request(("lab", "x=lab"), ("harness:arc_eazy",)), Path("runs"))


@pytest.fixture(scope="module")
def plain(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models without a chat template, as continued pretraining leaves them; and texts."""
    folder = tmp_path_factory.mktemp("plain")
    for name in ("tiny", "whole", "lora"):
        shutil.copytree(models / name, folder / name)
        (folder / name / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "lora" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(folder / "tiny")
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    texts = ("Mia has 3 apples.", "Tom has 5 coins.", "Ana has 9 nuts.")
    store.write_jsonl(folder / "texts.jsonl", [{"text": one} for one in texts])
    return folder


def _ask(folder: Path, out: Path, *more: object) -> int:
    given = ("--runs-dir", out, "--name", "c", "--set", f"tasks.text.path={folder / 'texts.jsonl'}")
    return call(folder / "tiny", folder / "whole", folder / "lora", *given, *more)


def test_models_without_a_chat_template_are_compared_on_texts(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bits, of which fewer are better, and no word of templates that nobody used."""
    assert _ask(plain, tmp_path, "--tasks", "text") == 0
    found = results_of(tmp_path / "c")
    assert found.conditions["Chat template"] == "not used"
    said = capsys.readouterr().out
    for arm in ("whole", "lora"):
        cell = final(found, arm, "text")
        assert cell is not None and cell.diff is not None and cell.diff.mean is not None
        assert f"  text  {change_text(cell.diff.mean, 'bits')}" in said
    assert "bits/byte" in said and "points" not in said and "holdfast power" not in said
    assert cli.call(["power", str(tmp_path / "c")]) == 0
    assert capsys.readouterr().out.startswith("text: no answers flip in a measure")


def test_and_not_on_what_is_asked_in_turns(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ask(plain, tmp_path, "--tasks", "text,lab_math") == 3
    assert "no chat template" in capsys.readouterr().err
    template = model_folder() / "chat_template.jinja"
    told = ("--set", f"model.chat_template={template}", "--dry-run")
    assert _ask(plain, tmp_path, "--tasks", "text,lab_math", *told) == 0

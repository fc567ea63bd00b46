"""A vLLM of our own: what it is asked, what becomes of its faults, and that nothing of it stays.

`fixtures.vllm` stands for the program; the real one is in `tests/engines/test_real_vllm.py`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import readings_of, run_study, write_study
from fixtures.tiny_model import make_adapter
from fixtures.vllm import FakeVLLM, wait_gone

from holdfast import models, study
from holdfast.config import AnswerSpec, Sampling, Study, load
from holdfast.data import chat
from holdfast.engines import resumable
from holdfast.engines.hf import HFEngine
from holdfast.engines.pool import EnginePool
from holdfast.engines.reply_text import ThoughtReader
from holdfast.engines.vllm import INSTEAD, NAME, VLLMEngine, program, server
from holdfast.engines.vllm.program import Program, find
from holdfast.engines.vllm.settings import MOST_SHARE, Settings, fitted, lora_rank, sizes
from holdfast.errors import EndpointError, MissingDependency, OutOfMemory
from holdfast.memory.hardware.devices import parse
from holdfast.memory.memory_plan import GIB
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop
from holdfast.types import Example, Message

ASKED = [Example(f"q{i}", (Message("user", f"What is {i} plus 4?"),), "4") for i in range(12)]
FEW = Sampling(max_new_tokens=8)


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0
        self.stop = Stop()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, amount: int = 1) -> None:
        self.done += amount


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return models.load_tokenizer(ModelRef(str(tiny_model)))


@pytest.fixture
def fake(tmp_path: Path, tokenizer: Any) -> Iterator[FakeVLLM]:
    one = FakeVLLM(tmp_path / "vllm", len(tokenizer))
    yield one
    assert wait_gone(one.pids) == [], "a process of the server is left"


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "adapter"
    make_adapter(tiny_model, folder)
    return folder


def changed(adapter: Path, into: Path, **settings: Any) -> Path:
    """An adapter with other settings."""
    into.mkdir()
    (into / "adapter_model.safetensors").symlink_to(adapter / "adapter_model.safetensors")
    own = json.loads((adapter / "adapter_config.json").read_text())
    (into / "adapter_config.json").write_text(json.dumps({**own, **settings}))
    return into


def test_what_is_asked_is_what_the_local_engine_asks(
    fake: FakeVLLM, tiny_model: Path, tokenizer: Any
) -> None:
    more = [
        Example("text", (Message("user", "What is 3?"),), meta={"continue": "text"}),
        Example("user", (Message("user", "no matter"),), meta={"continue": "user"}),
        Example("begun", (Message("user", "What is 3?"),), meta={"prefix": "3"}),
        Example("until", (Message("user", "What is 3?"),), meta={"until": ["plus"]}),
    ]
    told, asked = Told(), [*ASKED, *more]
    with fake.engine(tiny_model) as engine:
        assert not fake.rows("starts"), "nothing is started before something is asked"
        replies = engine.generate(asked, FEW, None, told)
        assert engine.about == f"{NAME} 0.32.0+fake, CPU, float32"
        used = engine.usage
    (start,), bodies = fake.rows("starts"), fake.rows("bodies")
    ids = {one.id: chat.asked_ids(tokenizer, one) for one in asked}
    assert sorted(one["prompt"] for one in bodies) == sorted(ids.values())
    assert used.read == sum(map(len, ids.values())) and told.done == len(asked)
    by_prompt = {tuple(one["prompt"]): one for one in bodies}
    stops = sorted(chat.stop_ids(tokenizer, None))
    reader = ThoughtReader(tokenizer)
    for example, (reply,) in zip(asked, replies, strict=True):
        body = by_prompt[tuple(ids[example.id])]
        assert body["ignore_eos"] and body["stop_token_ids"] == stops
        assert (body["temperature"], body["max_tokens"]) == (0.0, 8)
        assert body.get("stop") == (["plus"] if example.id == "until" else None)
        prompt = body["prompt"]
        wrote = [(sum(prompt) * 7 + 13 * i) % len(tokenizer) for i in range(64)]
        wrote = [one for one in wrote if one not in stops][: 3 + sum(prompt) % 4]
        assert (reply.example_id, reply.finish) == (example.id, "stop")
        assert reply.n_tokens == len(wrote) + 1
        if example.id != "until":
            opening = "" if "continue" in example.meta else reader.opened(prompt)
            assert reply.text == reader.text(wrote, opening)
    assert used.written == sum(one.n_tokens for (one,) in replies)
    words = start["words"]
    assert words[words.index("--host") + 1] == "127.0.0.1" and "float32" in words
    assert "--enable-lora" in words and fake.option("--max-lora-rank") == ["8"]
    key = start["environment"]["VLLM_API_KEY"]
    assert len(key) > 20 and key not in " ".join([*words, *told.lines, engine.about])
    assert "VLLM_CPU_KVCACHE_SPACE" in start["environment"]
    assert start["environment"]["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"


def test_every_drawn_answer_has_a_seed_of_its_own(fake: FakeVLLM, tiny_model: Path) -> None:
    drawing = Sampling(
        max_new_tokens=8, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, samples=3, stop=("Q:",),
        repetition_penalty=1.2,
    )  # fmt: skip
    with fake.engine(tiny_model) as engine:
        first = engine.generate(ASKED, drawing, None, Silent())
        again = engine.generate(ASKED[::-1], drawing, None, Silent())[::-1]
    assert first == again and [one.sample for one in first[0]] == [0, 1, 2]
    bodies = fake.rows("bodies")
    assert len({one["seed"] for one in bodies}) == 36 and len(bodies) == 72
    told = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    assert all(bodies[0][name] == value for name, value in told.items())
    assert bodies[0]["stop"] == ["Q:"] and bodies[0]["include_stop_str_in_output"]


def test_log_probabilities_are_read_as_the_local_engine_gives_them(
    fake: FakeVLLM, tiny_model: Path, tokenizer: Any, adapter: Path
) -> None:
    def logprob(token: int) -> float:
        return -(token % 10 + 1) / 10

    with fake.engine(tiny_model) as engine:
        losses = engine.token_nll(ASKED)
        likely = engine.loglikelihood([(one, " 4") for one in ASKED[:3]], str(adapter))
        chances = engine.first_token(ASKED[:3], ("What", "4"), Silent())
        read = engine.usage.read
    stops = frozenset(chat.stop_ids(tokenizer, None))
    rows = [chat.encode(tokenizer, one, stops) for one in ASKED]
    for row, found in zip(rows, losses, strict=True):
        assert found == [-logprob(one) for one in row.ids[-row.cost.supervised :]]
    tails = [chat.followed_ids(tokenizer, one, " 4") for one in ASKED[:3]]
    for (_, tail), (value, greedy) in zip(tails, likely, strict=True):
        assert value == pytest.approx(sum(map(logprob, tail)))
        assert greedy == all(one % 2 == 0 for one in tail)
    first = chat.first_ids(tokenizer, ("What", "4"))
    assert chances == [pytest.approx([math.exp(logprob(one)) for one in first])] * 3
    asked = [chat.asked_ids(tokenizer, one) for one in ASKED[:3]]
    count = sum(len(row.ids) for row in rows) + sum(len(head) + len(tail) for head, tail in tails)
    assert read == count + sum(map(len, asked))
    names = {one["model"] for one in fake.rows("bodies") if "prompt_logprobs" in one}
    assert len(names) == 2 and len(fake.rows("starts")) == 1


def test_whole_texts_are_scored_window_by_window(
    fake: FakeVLLM, tiny_model: Path, tokenizer: Any, adapter: Path
) -> None:
    texts = ["Tom has 5 nuts. He buys 6 more.", "Tom"]
    with fake.engine(tiny_model) as engine:
        found = engine.text_nll(texts, 6, 2, str(adapter))
    for text, one in zip(texts, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert one.nats == pytest.approx(sum((token % 10 + 1) / 10 for token in ids))
        assert (one.tokens, one.unknown) == (len(ids), 0)
    prompts = [one["prompt"] for one in fake.rows("bodies") if "prompt_logprobs" in one]
    assert len(prompts) > 2 and max(map(len, prompts)) == 6


def test_base_and_adapters_live_in_one_server(
    fake: FakeVLLM, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    others = [changed(adapter, tmp_path / f"a{n}", lora_alpha=20 + n) for n in range(5)]
    with fake.engine(tiny_model) as engine:
        base = engine.generate(ASKED, FEW, None, Silent())
        tuned = engine.generate(ASKED, FEW, str(adapter), Silent())
        half = engine.generate(ASKED, FEW, str(adapter), Silent(), 0.5)
        assert engine.generate(ASKED, FEW, str(adapter), Silent()) == tuned
        assert engine.generate(ASKED, FEW, None, Silent()) == base
        assert len({str(one) for one in (base, tuned, half)}) == 3
        assert len(fake.rows("loads")) == 2 and not fake.rows("unloads"), "both stay loaded"
        for one in others:
            engine.generate(ASKED[:1], FEW, str(one), Silent())
    assert len(fake.rows("loads")) == 7 and len(fake.rows("unloads")) == 3
    assert fake.option("--max-loras") == ["4"]


def test_a_higher_rank_than_the_servers_starts_it_again(
    fake: FakeVLLM, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    large = changed(adapter, tmp_path / "large", r=4, rank_pattern={"q_proj": 40})
    told = Told()
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED[:2], FEW, str(adapter), told)
        engine.generate(ASKED[:2], FEW, str(large), told)
        engine.generate(ASKED[:2], FEW, str(adapter), told)
    assert fake.option("--max-lora-rank") == ["8", "64"]


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_that_vllm_does_not_take_is_merged(
    settings: dict[str, Any], fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **settings)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    get_peft_model(model, config).save_pretrained(tmp_path / "odd")
    told = Told()
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED, FEW, None, told)
        engine.generate(ASKED, FEW, str(tmp_path / "odd"), told)
        assert "merged into the weights" in engine.about
        engine.token_nll(ASKED)
        assert "merged" not in engine.about
        engine.generate(ASKED[:2], FEW, str(tmp_path / "odd"), told)
    first, second, third, last = fake.rows("starts")
    assert first["model"] == third["model"] == str(tiny_model)
    assert second["model"] == last["model"] != str(tiny_model), "merged once, served twice"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(second["files"])
    assert "--enable-lora" in first["words"] and "--enable-lora" not in second["words"]
    assert not Path(second["model"]).exists(), "merged weights are removed"
    assert any("does not take the adapter" in one for one in told.lines)


def test_an_adapter_that_the_server_refuses_is_merged(
    fake: FakeVLLM, tiny_model: Path, adapter: Path
) -> None:
    fake.plan(refuses="expected target modules in {q_proj}")
    told = Told()
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED, FEW, str(adapter), told)
        engine.generate(ASKED, FEW, str(adapter), told)
        assert "merged" in engine.about
    assert len(fake.rows("loads")) == 1 and len(fake.rows("starts")) == 2
    assert any("expected target modules" in one for one in told.lines)


def test_a_longer_prompt_starts_a_server_that_takes_it(fake: FakeVLLM, tiny_model: Path) -> None:
    """The model reads 512 tokens; a prompt beyond them is no question that it could be put."""
    long = Example("long", (Message("user", "What is 3 plus 4? " * 40),))
    endless = Example("endless", (Message("user", "What is 3 plus 4? " * 200),))
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED[:1], FEW, None, Silent())
        (reply,) = engine.generate([long], FEW, None, Silent())[0]
        assert reply.n_tokens > 0
        with pytest.raises(EndpointError, match="the model reads 512") as caught:
            engine.generate([endless], FEW, None, Silent())
    assert "engine: hf" in caught.value.remedy
    assert fake.option("--max-model-len") == ["512"]


def test_killed_at_a_question_only_what_is_missing_is_asked_again(
    fake: FakeVLLM, tiny_model: Path, adapter: Path
) -> None:
    fake.plan(die_at=[7, 3])
    told = Told()
    with fake.engine(tiny_model, batch_size=1) as engine:
        replies = engine.generate(ASKED, FEW, str(adapter), told)
    assert [one.example_id for (one,) in replies] == [one.id for one in ASKED]
    bodies = fake.rows("bodies")
    answered = {0: 6, 1: 2, 2: 4}  # the last of the first two died with it
    assert [sum(one["start"] == n for one in bodies) for n in range(3)] == [7, 3, 4]
    assert sum(answered.values()) == len(ASKED) and told.done == len(ASKED)
    assert len(fake.rows("loads")) == 3, "a new server is given the adapter again"
    assert len({one["words"][one["words"].index("--port") + 1] for one in fake.rows("starts")}) > 1
    assert any("6 questions left; starting it again" in one for one in told.lines)
    fresh = FakeVLLM(fake.folder.parent / "fresh", fake.vocabulary)
    with fresh.engine(tiny_model) as engine:
        assert engine.generate(ASKED, FEW, str(adapter), Silent()) == replies


def test_a_server_that_keeps_dying_is_given_up_and_answers_are_kept(
    fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    fake.plan(die_at=[4, *[1] * 9], last_words="Segmentation fault at the very end")
    engine = fake.engine(tiny_model, batch_size=1)
    with engine, pytest.raises(EndpointError, match="died 4 times") as caught:
        resumable.ask(lambda: engine, ASKED, FEW, tmp_path / "stage", Silent())
    assert "Segmentation fault" in caught.value.message and "kept" in caught.value.remedy
    assert len(fake.rows("starts")) == 4
    before = len(fake.rows("bodies"))
    fake.plan()
    engine = fake.engine(tiny_model)
    with engine:
        found = resumable.ask(lambda: engine, ASKED, FEW, tmp_path / "stage", Silent())
    assert [one.example_id for one in found] == [one.id for one in ASKED]
    assert len(fake.rows("bodies")) - before == len(ASKED) - 3


def test_a_lost_adapter_is_given_again_and_a_stumble_is_asked_again(
    fake: FakeVLLM, tiny_model: Path, adapter: Path
) -> None:
    fake.plan(forgets_at=4, stumbles_at=[9])
    with fake.engine(tiny_model, batch_size=1) as engine:
        assert len(engine.generate(ASKED, FEW, str(adapter), Silent())) == len(ASKED)
    assert len(fake.rows("starts")) == 1 and len(fake.rows("loads")) == 2
    assert len(fake.rows("bodies")) == len(ASKED) + 2


def test_no_room_at_the_start_tries_smaller_and_says_so(fake: FakeVLLM, tiny_model: Path) -> None:
    fake.plan(no_room=2)
    told = Told()
    with fake.engine(tiny_model, batch_size=None) as engine:
        engine.generate(ASKED, FEW, None, told)
        assert engine.about.startswith(NAME) and not engine.instead
    assert fake.option("--max-num-seqs") == ["64", "16", "4"]
    tries = [one for one in told.lines if "has no room" in one]
    assert len(tries) == 2 and "CUDA out of memory" in tries[0]


def test_without_any_room_the_local_engine_answers_and_says_so(
    fake: FakeVLLM, tiny_model: Path, adapter: Path
) -> None:
    fake.plan(no_room=99)
    told = Told()
    with fake.engine(tiny_model) as engine:
        found = engine.generate(ASKED, FEW, str(adapter), told)
        losses = engine.token_nll(ASKED)
        assert engine.about.startswith(INSTEAD) and "CUDA out of memory" in engine.instead
        assert engine.usage.written == sum(one.n_tokens for (one,) in found)
    with HFEngine(ModelRef(str(tiny_model)), "cpu", "float32", batch_size=4) as here:
        assert here.generate(ASKED, FEW, str(adapter), Silent()) == found
        assert here.token_nll(ASKED) == losses
    assert told.done == len(ASKED)
    assert any("transformers answer instead" in one for one in told.lines)


def test_no_room_after_answers_is_an_error_and_no_mixture(fake: FakeVLLM, tiny_model: Path) -> None:
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED[:2], FEW, None, Silent())
        fake.plan(no_room=99)
        assert engine._serving is not None
        engine._serving.close()
        with pytest.raises(OutOfMemory, match="compared with") as caught:
            engine.generate(ASKED, FEW, None, Silent())
    assert "another run folder" in caught.value.remedy
    with fake.engine(tiny_model, may_change=False) as engine, pytest.raises(OutOfMemory):
        engine.generate(ASKED, FEW, None, Silent())


def test_memory_that_runs_out_while_it_answers_makes_the_next_server_smaller(
    fake: FakeVLLM, tiny_model: Path
) -> None:
    fake.plan(die_at=[20], last_words="torch.OutOfMemoryError: CUDA out of memory.")
    many = [Example(f"m{n}", (Message("user", f"What is {n} plus 4?"),)) for n in range(30)]
    with fake.engine(tiny_model, batch_size=16) as engine:
        assert len(engine.generate(many, FEW, None, Silent())) == 30
    assert fake.option("--max-num-seqs") == ["16", "4"]


def test_a_port_that_was_taken_meanwhile_is_left_for_another(
    fake: FakeVLLM, tiny_model: Path
) -> None:
    fake.plan(taken=2)
    with fake.engine(tiny_model) as engine:
        assert len(engine.generate(ASKED, FEW, None, Silent())) == len(ASKED)
    assert len(fake.rows("starts")) == 3


def test_a_start_that_fails_otherwise_is_told_with_the_end_of_the_log(
    fake: FakeVLLM, tiny_model: Path
) -> None:
    fake.plan(broken="ValueError: Model architectures ['X'] are not supported for now")
    with fake.engine(tiny_model) as engine, pytest.raises(EndpointError) as caught:
        engine.generate(ASKED, FEW, None, Silent())
    said = str(caught.value)
    assert "ended with status 1" in said and "['X'] are not supported" in said
    assert "engine: hf" in said
    (start,) = fake.rows("starts")
    assert start["environment"]["VLLM_API_KEY"] not in said
    assert "INFO starting" in said and "[key]" in said
    found = re.search(r"the whole log: (\S+);", said)
    assert found and "Model architectures" in (log := Path(found[1]).read_text())
    assert start["environment"]["VLLM_API_KEY"] not in log
    shutil.rmtree(Path(found[1]).parent)


def test_a_server_that_read_another_prompt_is_no_server(fake: FakeVLLM, tiny_model: Path) -> None:
    fake.plan(miscounts=1)
    with fake.engine(tiny_model) as engine, pytest.raises(EndpointError, match="it read") as caught:
        engine.generate(ASKED, FEW, None, Silent())
    assert caught.value.fault == "other"


def test_a_program_that_is_none_or_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="is no program") as caught:
        find(str(tmp_path / "nowhere"))
    assert caught.value.exit_code == 3 and "pip install vllm==" in caught.value.remedy
    for version, taken in (("0.9.2", False), ("1.2.0", False), ("0.33.1", True)):
        fake = FakeVLLM(tmp_path / version, 100, version=version)
        if taken:
            found = find(str(fake.program))
            assert found.version == version and found.untried
            continue
        with pytest.raises(MissingDependency, match=rf"is vLLM {version}.*0.32 or newer") as caught:
            find(str(fake.program))
        assert str(fake.program) in str(caught.value)
    with pytest.raises(MissingDependency, match="has no vLLM"):
        find(sys.executable)  # this environment has none
    with pytest.raises(MissingDependency, match="needs vLLM"):
        find(None)


def test_a_python_that_has_vllm_is_asked_for_its_metadata(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -I ] && echo 0.32.0\n', "utf-8")
    python.chmod(0o755)
    found = find(str(python))
    assert found.words == (str(python), "-m", program.MODULE) and found.version == "0.32.0"
    assert not found.untried


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from fixtures.vllm import FakeVLLM
from engines.test_vllm import ASKED, FEW, Told

class Out(Told):
    def say(self, line):
        print(line, flush=True)

fake = FakeVLLM.__new__(FakeVLLM)
fake.program = Path({program!r})
with fake.engine(Path({model!r})) as engine:
    engine.generate(ASKED, FEW, None, Out())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["starting", "answering"])
def test_nothing_stays_after_its_parent_was_killed(
    stage: str, how: signal.Signals, fake: FakeVLLM, tiny_model: Path
) -> None:
    fake.plan(hangs=True, children=True, start_s=600 if stage == "starting" else 0)
    paths = [str(Path(__file__).parents[1]), *sys.path]
    code = SCRIPT.format(paths=paths, program=str(fake.program), model=str(tiny_model))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    assert parent.stdout is not None
    wanted = "starting vLLM" if stage == "starting" else "vLLM answers"
    with parent.stdout as lines:
        assert any(wanted in line for line in lines)
        while len(fake.pids) < 3:  # the program writes them as it begins
            assert parent.poll() is None
            os.sched_yield()
        parent.send_signal(how)
        parent.wait(60)
    assert len(fake.pids) == 3
    assert wait_gone(fake.pids) == []


def test_a_server_that_does_not_want_to_end_is_killed(
    fake: FakeVLLM, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE_S", 0.2)
    fake.plan(stubborn=True, children=True)
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED[:2], FEW, None, Silent())
    assert len(fake.pids) == 3 and wait_gone(fake.pids) == []


def test_a_warden_that_is_killed_takes_the_server_with_it(fake: FakeVLLM, tiny_model: Path) -> None:
    fake.plan(children=True)
    with fake.engine(tiny_model) as engine:
        engine.generate(ASKED[:2], FEW, None, Silent())
        assert engine._serving and engine._serving._server and engine._serving._server._warden
        engine._serving._server._warden.kill()
        assert len(engine.generate(ASKED, FEW, None, Silent())) == len(ASKED)
    leader, child, apart = fake.pids[:3]
    assert wait_gone([leader, child]) == []
    os.kill(apart, signal.SIGKILL)  # what left the group only the warden could have ended


def test_asked_to_stop_it_finishes_what_is_under_way_and_keeps_it(
    fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    told = Told()
    engine = fake.engine(tiny_model, batch_size=2)

    class Stopping(Told):
        def advance(self, amount: int = 1) -> None:
            super().advance(amount)
            if self.done:  # what is kept of an earlier sitting is told first: nothing here
                self.stop.signals.append(signal.SIGINT)

    stopping = Stopping()
    with engine, pytest.raises(KeyboardInterrupt):
        resumable.ask(lambda: engine, ASKED, FEW, tmp_path / "stage", stopping)
    came = len(fake.rows("bodies"))
    assert 1 <= stopping.done == came <= 4
    engine = fake.engine(tiny_model)
    with engine:
        assert len(resumable.ask(lambda: engine, ASKED, FEW, tmp_path / "stage", told)) == 12
    assert len(fake.rows("bodies")) == len(ASKED)


def test_a_study_is_trained_here_and_answered_by_vllm(
    fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    arms = {"sft": {}, "half": {"from": "sft", "weights": [{"scale": {"factors": [0.5]}}]}}
    path = write_study(
        tmp_path, tiny_model, seeds=[1], arms=arms, hardware={"vllm": "vllm/vllm"},
        answer={"engine": "vllm", "batch_size": 4, "sampling": {"max_new_tokens": 8}},
    )  # fmt: skip
    folder = tmp_path / "runs/s"
    run_study(path, tmp_path / "runs")
    results = json.loads((folder / "stats/results.json").read_text())
    assert results["conditions"]["Engine"].startswith("vLLM (base and every")
    assert results["conditions"]["Device"] == "vLLM 0.32.0+fake, CPU, float32"
    assert fake.option("--max-lora-rank") == ["16"] * len(fake.rows("starts"))
    names = {one["model"] for one in fake.rows("bodies")}
    assert len(names) >= 4 and readings_of(folder)
    assert {str(folder)} <= {str(Path(one["lora_path"]).parents[3]) for one in fake.rows("loads")
                             if "share" not in one["lora_path"]}  # fmt: skip
    key = fake.rows("starts")[0]["environment"]["VLLM_API_KEY"].encode()
    assert not [one for one in folder.rglob("*") if one.is_file() and key in one.read_bytes()]
    before = len(fake.rows("starts"))
    run_study(path, tmp_path / "runs")
    assert len(fake.rows("starts")) == before, "a finished study starts nothing"


def test_a_study_without_vllm_is_refused_before_anything_is_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    old = FakeVLLM(tmp_path / "old", 100, version="0.8.0")
    for hardware, said in (({}, "needs vLLM"), ({"vllm": str(old.program)}, "is vLLM 0.8.0")):
        path = write_study(tmp_path, tiny_model, hardware=hardware, answer={"engine": "vllm"})
        with pytest.raises(MissingDependency, match=said):
            run_study(path, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_two_engines_in_one_study_are_told(
    fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    """The base was answered by vLLM in one sitting; in the next it has no room."""
    path = write_study(
        tmp_path, tiny_model, seeds=[1], arms={"sft": {}}, hardware={"vllm": "vllm/vllm"},
        answer={"engine": "vllm", "sampling": {"max_new_tokens": 8}},
    )  # fmt: skip
    run_study(path, tmp_path / "runs", only="replies/base/*")
    fake.plan(no_room=999)
    run_study(path, tmp_path / "runs")
    results = json.loads((tmp_path / "runs/s/stats/results.json").read_text())
    assert results["conditions"]["Engine"].startswith("mixed: vLLM, and ")
    assert any(one.startswith("Two engines answered") for one in results["warnings"])
    assert "mixed: " in results["conditions"]["Device"]


def test_a_guard_has_a_server_of_its_own_without_adapters(
    fake: FakeVLLM, tiny_model: Path, adapter: Path
) -> None:
    ref = ModelRef(str(tiny_model))
    given = Study(
        name="s", model=str(tiny_model), tasks={"lab_math": {"role": "target"}}, arms={"sft": {}},
        answer=AnswerSpec(engine="vllm", sampling=FEW), train={"lora": {"r": 20}},
        hardware={"device": "cpu", "vllm": str(fake.program)},
    )  # fmt: skip
    pool = EnginePool(given, (), (ref,))
    tested = pool.engine(ref)
    tested.generate(ASKED[:1], FEW, str(adapter), Silent())
    guard = pool.engine(ref, nf4=False)
    assert guard is not tested and isinstance(guard, VLLMEngine)
    shown = [Example("r", (*ASKED[0].messages, Message("assistant", "Safe.")),
                     meta={"continue": "judged"})]  # fmt: skip
    assert guard.generate(shown, FEW, None, Silent())[0][0].text
    pool.close()
    assert fake.option("--max-lora-rank") == ["32", ""]
    assert pool.about.startswith(NAME)
    fake.plan(no_room=99)
    with pytest.raises(OutOfMemory):  # the models under test were answered by vLLM before
        pool.engine(ref).generate(ASKED[:1], FEW, None, Silent())
    pool.close()
    beside = EnginePool(given, (), (ref,))
    beside.alone = False
    with pytest.raises(OutOfMemory):  # another worker's replies would be compared with these
        beside.engine(ref).generate(ASKED[:1], FEW, None, Silent())
    beside.close()


def _fitted(gpus: str, rows: int = 128, model: str = "Qwen/Qwen2.5-7B-Instruct") -> Settings:
    asked = Settings(ModelRef(model), "bfloat16", 2560, rows, 16)
    return fitted(asked, sizes(ModelRef(model)), parse(gpus) if gpus else ())


def test_the_server_gets_the_memory_that_is_free() -> None:
    one = _fitted("1x24GiB")
    assert (one.gpus, one.share, one.eager) == (1, MOST_SHARE, False)
    busy = fitted(one, sizes(one.ref), [replace(parse("1x24GiB")[0], free_bytes=13 * GIB)])
    assert busy.share == pytest.approx(0.5)
    assert _fitted("2x16GiB").gpus == 2 and _fitted("3x16GiB").gpus == 2  # 28 heads in 3? no
    words = one.command(Program(("vllm",), "0.32.0"), "n", 1)
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.920"
    assert "VLLM_CPU_KVCACHE_SPACE" not in one.variables()
    tries, left = [], one
    while (smaller := left.smaller(600)) is not None:
        tries, left = [*tries, (smaller.rows, smaller.tokens)], smaller
    assert tries == [(32, 2560), (8, 2560), (4, 2560), (1, 600)] and left.eager
    on_cpu = _fitted("", rows=4, model="Qwen/Qwen2.5-0.5B-Instruct")
    assert on_cpu.gpus == 0 and on_cpu.cache_gib == 1
    assert on_cpu.variables()["CUDA_VISIBLE_DEVICES"] == ""
    assert [lora_rank(one) for one in (1, 4, 16, 17, 512, 513)] == [1, 8, 16, 32, 512, 0]


def test_notices_say_what_vllm_does_not_serve(
    fake: FakeVLLM, tiny_model: Path, tmp_path: Path
) -> None:
    train = {"lora": {"variant": "dora"}, "optim": "adamw_torch", "max_steps": 2, "checkpoints": 1}
    path = write_study(
        tmp_path, tiny_model, arms={"sft": {}}, train=train, hardware={"vllm": str(fake.program)},
        answer={"engine": "vllm"},
    )  # fmt: skip
    session = study.prepare(load.load(path), tmp_path / "run", str(path))
    said = study.preflight.check(session)
    assert any("no adapters of the kind dora" in one for one in said)

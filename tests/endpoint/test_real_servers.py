"""SmolLM2 behind real servers on this machine, against SmolLM2 loaded here.

`transformers serve` comes with the project; vLLM and llama.cpp are used where `python
benchmarks/real/serve.py vllm` and `... llama.cpp` installed them (or HOLDFAST_VLLM names the
program, HOLDFAST_LLAMA a Python that has xllamacpp). What is not there is skipped and says so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study

from benchmarks.real.serve import KINDS, Served, lacking
from benchmarks.real.servers import alike, make_adapter, questions
from holdfast import compare
from holdfast.config import Sampling
from holdfast.endpoint import Endpoint, parse_url
from holdfast.engines.prompt_proof import PromptProof, check_served
from holdfast.engines.remote import RemoteEngine
from holdfast.errors import EndpointError
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Reply

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
ASKED, FEW = questions(6), Sampling(max_new_tokens=12)
SLOW = [pytest.param(one, marks=pytest.mark.slow if one != "transformers" else ()) for one in KINDS]


@pytest.fixture(scope="module", params=SLOW)
def server(
    request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    if why := lacking(request.param):
        pytest.skip(why)
    file = smollm2
    if request.param == "llama.cpp":
        file = request.getfixturevalue("smollm2_gguf")
    log = tmp_path_factory.mktemp("server") / "server.log"
    with Served(request.param, file, log) as one:
        yield one


@pytest.fixture(scope="module")
def here(
    smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, list[list[Reply]]]]:
    """An adapter, and what the model loaded here says without and with it."""
    from holdfast.engines.hf import HFEngine

    adapter = str(tmp_path_factory.mktemp("adapter"))
    make_adapter(smollm2, Path(adapter))
    with HFEngine(ModelRef(str(smollm2)), "cpu", "float32") as engine:
        said = {who: engine.generate(ASKED, FEW, who or None, Silent()) for who in ("", adapter)}
    assert said[""] != said[adapter]
    return adapter, said


def _endpoint(server: Served, **settings: Any) -> Endpoint:
    return Endpoint(parse_url(server.address).model_copy(update=settings), first_wait_s=0.1)


def test_prompts_token_for_token_and_answers(
    server: Served, smollm2: Path, here: tuple[str, dict[str, list[list[Reply]]]]
) -> None:
    ref, endpoint, (adapter, said) = ModelRef(str(smollm2)), _endpoint(server), here
    proof = PromptProof(ref, server.url)
    if server.kind != "transformers":  # which tells only how many it read
        with endpoint.running() as running:
            for one in ASKED:
                body = endpoint.request(one.messages, 1)
                assert running.prompt_ids(body) == proof.ids(one)
    with RemoteEngine(ref, endpoint=endpoint) as engine:
        far = engine.generate(ASKED, FEW, None, Silent())  # counts every prompt's tokens
        assert engine.usage.read == sum(len(proof.ids(one)) for one in ASKED)
        same, _ = alike(far, said[""])
        print(f"{server.kind}: {same} of {len(ASKED)} greedy answers agree letter for letter")
        assert same >= len(ASKED) - (1 if server.kind != "llama.cpp" else 4)
        assert {(a.finish, a.n_tokens) for (a,) in far if a.finish == "length"} <= {("length", 12)}
        if server.kind == "vllm":
            tuned = engine.generate(ASKED, FEW, adapter, Silent())
            assert alike(tuned, said[adapter])[0] >= len(ASKED) - 1
        else:
            with pytest.raises(EndpointError, match="cannot be given an adapter") as caught:
                engine.generate(ASKED, FEW, adapter, Silent())
            assert "engine: hf" in caught.value.remedy
    if server.kind == "vllm":
        with endpoint.running() as running:
            assert running._names() == [endpoint.server.model]  # nothing is left there


def test_another_model_than_said_is_refused(server: Served, lab: Path) -> None:
    """The server has SmolLM2, and the study says that it is the lab's model."""
    with pytest.raises(EndpointError, match="does not serve") as caught:
        endpoint = _endpoint(server)
        check_served(endpoint, ModelRef(str(lab)), ASKED, False)
        with RemoteEngine(ModelRef(str(lab)), endpoint=endpoint) as engine:
            engine.generate(ASKED, FEW, None, Silent())
    assert caught.value.fault == "other"
    if server.kind != "transformers":
        with pytest.raises(EndpointError, match="does not list"):
            wrong = _endpoint(server, model="another")
            wrong.ask([wrong.request(ASKED[0].messages, 4)], None, Silent())


@pytest.fixture(scope="module")
def lab() -> Path:
    from holdfast.lab import model_folder

    return Path(model_folder())


def test_killed_in_the_middle_and_started_again(
    server: Served, smollm2: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "answers.jsonl"

    def rows() -> list[Any]:
        return [json.loads(one) for one in kept.read_text().splitlines()] if kept.exists() else []

    def ask(retries: int) -> int:
        endpoint = _endpoint(server, concurrency=1, retries=retries)
        with RemoteEngine(ModelRef(str(smollm2)), endpoint=endpoint) as engine:
            engine.answer_folder = tmp_path
            try:
                assert len(engine.generate(ASKED, FEW, None, Silent())) == len(ASKED)
            finally:
                sent.append(engine._endpoint.spending.sent)
        return sent[-1]

    def killer() -> None:
        while len(rows()) < 2:
            time.sleep(0.01)
        server.kill()

    sent: list[int] = []
    thread = threading.Thread(target=killer)
    thread.start()
    with pytest.raises(EndpointError) as caught:
        ask(retries=1)
    thread.join()
    came = len(rows())
    assert 2 <= came < len(ASKED) and caught.value.fault in ("down", "broken")
    assert f"{came} of {len(ASKED)} answers came and are kept" in caught.value.remedy or came == 2
    server.start()
    assert ask(retries=0) == len(ASKED) - came  # only what is missing
    assert len({one["of"] for one in rows()}) == len(rows()) == len(ASKED)
    assert ask(retries=0) == 0


@pytest.mark.slow
def test_a_comparison_and_a_study(server: Served, smollm2: Path, tmp_path: Path) -> None:
    """Both from beginning to end; the figures of so few items mean nothing."""
    few = ("answer.repeats=1", "answer.sampling.max_new_tokens=4", "tasks.lab_math.items=3")
    found = compare(
        server.address, f"again={server.address}", ["lab_math"], runs_dir=tmp_path,
        settings=few, name="c", progress=Silent(),
    )  # fmt: skip
    assert found.conditions["Engine"] == "endpoint (all models alike)"
    said = [
        [json.loads(row)["text"] for row in (tmp_path / "c/replies" / who).read_text().splitlines()]
        for who in ("base/lab_math/replies.jsonl", "again/lab_math/replies.jsonl")
    ]
    assert len(said[0]) == 3 and said[0] == said[1]
    train = {"max_steps": 1, "checkpoints": 1, "per_device_train_batch_size": 2,
             "gradient_accumulation_steps": 1, "lora": {"r": 4}, "optim": "adamw_torch",
             "gradient_checkpointing": False}  # fmt: skip
    path = write_study(
        tmp_path, smollm2, seeds=[1], arms={"sft": {}}, train=train,
        tasks={"lab_math": {"role": "target", "items": 3, "train_items": 4}},
        answer={"engine": "remote", "server": server.address, "repeats": 1,
                "sampling": {"max_new_tokens": 4}},
    )  # fmt: skip
    if server.kind != "vllm":
        with pytest.raises(EndpointError, match="cannot be given an adapter"):
            run_study(path, tmp_path / "runs")
        assert not list((tmp_path / "runs").rglob("adapter_model.safetensors"))  # nothing trained
        return
    run_study(path, tmp_path / "runs")
    asked = list((tmp_path / "runs/s/replies").rglob("answers.jsonl"))
    names = {json.loads(row)["model"] for one in asked for row in one.read_text().splitlines()}
    assert len(names) == 2 and _endpoint(server).server.model in names

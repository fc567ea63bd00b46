"""A model whose files are here and that a server answers for: same prompts, adapters, what is left.

The stub speaks as vLLM 0.32 does; what real servers do is in `tests/endpoint/test_real_servers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.stub_server import StubServer
from fixtures.study import run_study, write_study
from fixtures.tiny_model import make_adapter, make_model

from holdfast import models, study
from holdfast.config import AnswerSpec, Sampling, Study, load
from holdfast.data import chat
from holdfast.endpoint import Endpoint, Server
from holdfast.engines.pool import EnginePool
from holdfast.engines.prompt_proof import check_served
from holdfast.engines.remote import RemoteEngine
from holdfast.errors import EndpointError, ModelError, StudyError
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message

ASKED = [Example(f"q{i}", (Message("user", f"What is {i} plus 4?"),)) for i in range(12)]
FEW = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    make_model(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(model: Path) -> str:
    folder = model.parent / "adapter"
    make_adapter(model, folder)
    return str(folder)


@pytest.fixture
def stub(model: Path) -> Iterator[StubServer]:
    tokenizer: Any = models.load_tokenizer(ModelRef(str(model)))

    def tokens(body: dict[str, Any]) -> list[int]:
        turns = tuple(Message(one["role"], one["content"]) for one in body["messages"])
        return chat.asked_ids(tokenizer, Example("", turns))

    with StubServer(lambda body: f"The answer is {len(body['model'])}.", model="m") as one:
        one.tokens, one.adapters = tokens, {}
        yield one


def _engine(stub: StubServer, model: Path) -> RemoteEngine:
    one = Endpoint(Server(url=stub.url, model="m", retries=0), first_wait_s=0.01)
    return RemoteEngine(ModelRef(str(model)), endpoint=one)


@pytest.mark.parametrize("by_address", [True, False])
def test_caps_hold_however_often_the_engine_is_opened(
    by_address: bool, stub: StubServer, model: Path
) -> None:
    """As between trainings: ten requests of one command are ten, not ten for each checkpoint."""
    served = f"{stub.url}?max_requests=10&retries=0#m"
    answer = AnswerSpec(engine="remote", server=None if by_address else served)
    name = served if by_address else str(model)
    tasks = {"lab_math": {"role": "target"}}
    given = Study(name="s", model=name, tasks=tasks, answer=answer)
    pool = EnginePool(given, (), (ref := ModelRef(name),))
    pool.engine(ref).generate(ASKED[:6], FEW, None, Silent())
    pool.close()
    with pytest.raises(EndpointError, match="max_requests is reached: 10"):
        pool.engine(ref).generate(ASKED[6:], FEW, None, Silent())
    assert len(stub.bodies) == 10


def test_an_adapter_is_loaded_asked_by_its_name_and_dropped(
    stub: StubServer, model: Path, adapter: str
) -> None:
    with _engine(stub, model) as engine:
        before = engine.generate(ASKED, FEW, None, Silent())
        tuned = engine.generate(ASKED, FEW, adapter, Silent())
        engine.generate(ASKED[:2], FEW, adapter, Silent())
        (name,) = stub.adapters or {}
        half = engine.generate(ASKED, FEW, adapter, Silent(), 0.5)
        (other,) = stub.adapters or {}
        alpha = json.loads(stub.adapters[other])["lora_alpha"]
    own = json.loads((Path(adapter) / "adapter_config.json").read_text())
    assert stub.loads == [name, other] and name != other
    assert alpha == own["lora_alpha"] * 0.5
    assert [one[0].text for one in before] == ["The answer is 1."] * 12
    assert {one[0].text for one in tuned + half} == {f"The answer is {len(name)}."}
    assert stub.adapters == {}  # nothing is left on the server
    assert name.startswith("holdfast-")


def test_a_server_that_was_started_again_is_given_the_adapter_again(
    stub: StubServer, model: Path, adapter: str, tmp_path: Path
) -> None:
    with _engine(stub, model) as engine:
        engine.answer_folder = tmp_path
        engine.generate(ASKED[:6], FEW, adapter, Silent())
        stub.adapters = {}
        engine.generate(ASKED, FEW, adapter, Silent())
    assert len(stub.loads) == 2 and len(set(stub.loads)) == 1
    tuned = [json.dumps(one) for one in stub.bodies if one["model"] in stub.loads]
    assert len(set(tuned)) == 12
    # those under way met the server that had forgotten; none that was answered was put twice
    assert len({one for one in tuned[:6]} & set(tuned[6:])) == 0 and len(tuned) <= 12 + 8
    kept = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len({json.loads(one)["of"] for one in kept}) == len(kept) == 12


@pytest.mark.parametrize("told", [True, False])
def test_another_model_than_said_is_found_out_by_its_prompts(
    stub: StubServer, model: Path, told: bool
) -> None:
    def longer(body: dict[str, Any]) -> list[int]:
        return [1, *right(body)]

    right = stub.tokens
    assert right is not None
    stub.tokens = longer
    with _engine(stub, model) as engine:
        if not told:
            stub.quiet = True
        with pytest.raises(EndpointError, match=r"does not serve .*model") as caught:
            engine.generate(ASKED, FEW, None, Silent())
    assert caught.value.fault == "other" and "`model`" in caught.value.remedy
    assert ("reads" in caught.value.message) == told
    assert len(stub.bodies) == (0 if told else 1)  # not the other eleven


def test_a_prompt_of_which_a_part_was_read_is_found_out(stub: StubServer, model: Path) -> None:
    """Servers with a short context cut the beginning off without a word."""
    right = stub.tokens
    assert right is not None
    with _engine(stub, model) as engine:
        engine.generate(ASKED[:1], FEW, None, Silent())
        stub.tokens = lambda body: right(body)[2:]
        with pytest.raises(EndpointError, match=r"it read \d+ tokens .* which has \d+ here"):
            engine.generate(ASKED, FEW, None, Silent())


def test_a_name_that_a_server_does_not_list_is_refused_before_it_is_asked(
    stub: StubServer,
) -> None:
    stub.served = ["llama-3", "judge"]
    one = Endpoint(Server(url=stub.url, model="m", retries=0))
    with pytest.raises(EndpointError, match="does not list a model 'm'") as caught:
        one.ask([one.request(ASKED[0].messages, 8)], None, Silent())
    assert caught.value.fault == "unknown" and not stub.bodies
    assert "judge, llama-3" in caught.value.remedy and 'served_as: "m"' in caught.value.remedy
    said = Endpoint(Server(url=stub.url, model="m", served_as="m"))
    assert len(said.ask([said.request(ASKED[0].messages, 8)], None, Silent())) == 1


def test_a_server_without_adapters_is_refused_before_anything_is_trained(
    stub: StubServer, model: Path, adapter: str
) -> None:
    stub.adapters = None
    one = Endpoint(Server(url=stub.url, model="m"))
    assert check_served(one, ModelRef(str(model)), ASKED, False) == []
    with pytest.raises(EndpointError, match="cannot be given an adapter") as caught:
        check_served(one, ModelRef(str(model)), ASKED, True)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in caught.value.remedy
    with _engine(stub, model) as engine, pytest.raises(EndpointError, match="cannot be given"):
        engine.generate(ASKED, FEW, adapter, Silent())
    assert not stub.bodies


def test_what_the_server_says_of_an_adapter_is_passed_on(
    stub: StubServer, model: Path, adapter: str, tmp_path: Path
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((Path(adapter) / name).read_bytes())
    with _engine(stub, model) as engine, pytest.raises(EndpointError) as caught:
        stub.loading = (400, "LoRA rank 64 is greater than max_lora_rank 16.")
        engine.generate(ASKED, FEW, str(tmp_path), Silent())
    assert "rank 64" in caught.value.message and "--max-lora-rank" in caught.value.remedy


def test_what_a_server_cannot_do_is_done_here_or_refused(
    stub: StubServer, model: Path, adapter: str
) -> None:
    from holdfast.engines.hf import HFEngine

    ref = ModelRef(str(model))
    asked = [Example("a", ASKED[0].messages, "4")]
    with HFEngine(ref, "cpu", "float32") as here:
        loss, likely = here.token_nll(asked), here.loglikelihood([(asked[0], "4")], adapter)
        text = here.text_nll(["What is 2 + 2?"], None, None, adapter)
    with _engine(stub, model) as engine:
        assert engine.token_nll(asked) == loss
        assert engine.loglikelihood([(asked[0], "4")], adapter) == likely
        assert engine.text_nll(["What is 2 + 2?"], None, None, adapter) == text
        bare = [Example("b", asked[0].messages, meta={"continue": "text"})]
        assert engine.generate(bare, FEW, None, Silent())[0][0].n_tokens > 0
        assert engine.usage.written > 0
    far = RemoteEngine(ModelRef(f"{stub.url}#m"))
    with far as engine, pytest.raises(ModelError, match="cannot say how likely"):
        engine.token_nll(asked)
    assert not stub.bodies


def _study(folder: Path, model: Path, stub: StubServer, **more: Any) -> Path:
    answer = {"engine": "remote", "server": f"{stub.url}?retries=0#m", "batch_size": 4}
    answer |= {"sampling": {"max_new_tokens": 8}}
    arms = {"sft": {}, "half": {"from": "sft", "weights": [{"scale": {"factors": [0.5]}}]}}
    return write_study(folder, model, **{"seeds": [1], "arms": arms, "answer": answer} | more)


def test_a_study_trains_here_and_answers_there(
    stub: StubServer, model: Path, tmp_path: Path
) -> None:
    path = _study(tmp_path, model, stub)
    run_study(path, tmp_path / "runs")
    asked = {one["model"] for one in stub.bodies}
    assert asked == {"m", *stub.loads}
    assert len(stub.loads) == len(set(stub.loads)) == 3  # two checkpoints, and a share of the last
    assert stub.adapters == {}
    results = json.loads((tmp_path / "runs/s/stats/results.json").read_text())
    assert "remote" in results["conditions"]["Engine"]
    before = len(stub.bodies)
    run_study(path, tmp_path / "runs")
    assert len(stub.bodies) == before


def test_a_study_that_a_server_cannot_answer_is_refused(
    stub: StubServer, model: Path, tmp_path: Path
) -> None:
    def planned(**more: Any) -> None:
        study.plan(load.load(_study(tmp_path, model, stub, **more)), tmp_path / "run")

    train = {"method": "full", "max_steps": 6, "checkpoints": 2}
    with pytest.raises(StudyError, match=r"given adapters .* not whole weights"):
        planned(train=train, arms={"sft": {}})
    with pytest.raises(StudyError, match="not dora"):
        planned(train={"lora": {"variant": "dora"}, "max_steps": 6}, arms={"sft": {}})
    with pytest.raises(StudyError, match="no server is named"):
        planned(answer={"engine": "remote"})
    with pytest.raises(StudyError, match="engine: remote"):
        planned(answer={"server": "http://127.0.0.1:1/v1#m"})
    with pytest.raises(StudyError, match="address and its model"):
        planned(answer={"engine": "remote", "server": "http://127.0.0.1:1/v1"})

"""Is a GGUF file written out exactly, once, whole or not at all; and is a bad one refused?"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.tiny_gguf import PARTS, WHOLE, tiny_llama, write

from holdfast import cli, models
from holdfast.config import ModelSpec
from holdfast.errors import ModelError, UsageError
from holdfast.memory.model import gguf_folder
from holdfast.memory.model.reading import read_shape
from holdfast.models import gguf_cache, gguf_file, gguf_head, gguf_record, gguf_weights
from holdfast.runs import store

Edit = Callable[[bytearray], bytes | bytearray]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in Q8_0."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(tiny_llama(), path, "Q8_0")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def left(cache: Path) -> list[str]:
    """What lies in the cache beside locks and digests."""
    return sorted(one.name for one in cache.iterdir() if one.name != "digests" and
                  not one.name.endswith(".lock"))  # fmt: skip


# --- what is written out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q4_0", "bfloat16"),
     ("Q8_0", "bfloat16")],
)  # fmt: skip
def test_the_values_are_those_of_llama_cpps_own_reader(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    import gguf
    import torch

    write(tiny_llama(), tmp_path / "a.gguf", kind)
    ref = models.reference(ModelSpec(id=str(tmp_path / "a.gguf")))
    made = gguf_record.of(ref.base)
    assert made is not None and (made.kind, made.dtype) == (kind, dtype)
    found = models.load_model(ref, torch.float32, "cpu").state_dict()
    names = {other: own for own, other in WHOLE.items()} | {
        f"blk.{n}.{part}.weight": f"model.layers.{n}.{own}.weight"
        for n in (0, 1)
        for own, part in PARTS.items()
    }
    seen = 0
    for one in gguf.GGUFReader(tmp_path / "a.gguf").tensors:
        values = torch.from_numpy(np.array(gguf.dequantize(one.data, one.tensor_type)))
        if heads := {"attn_q": 4, "attn_k": 2}.get(one.name.split(".")[-2]):
            values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2)
        values = values.reshape(found[names[one.name]].shape)
        assert torch.equal(found[names[one.name]], values.to(getattr(torch, dtype)).float())
        seen += 1
    assert seen == len(found), "every weight was compared"


@pytest.mark.real
def test_a_real_file_too(smollm2: Path, smollm2_gguf: Path) -> None:
    import gguf
    import torch
    from safetensors import safe_open

    made = gguf_record.of(smollm2)
    assert made is not None and (made.kind, made.bytes) == ("Q4_1", 98_362_432)
    kinds = gguf_head.read(smollm2_gguf).kinds
    assert list(kinds) == ["Q4_1", "Q8_0", "F32"] and sum(kinds.values()) == 134_515_008
    reader = {one.name: one for one in gguf_weights.reader(smollm2_gguf).tensors}
    pairs = {"token_embd": "model.embed_tokens", "blk.0.attn_q": "model.layers.0.self_attn.q_proj",
             "blk.29.ffn_down": "model.layers.29.mlp.down_proj"}  # fmt: skip
    with safe_open(smollm2 / "model.safetensors", "pt") as stored:
        for name, own in pairs.items():
            one = reader[f"{name}.weight"]
            values = torch.from_numpy(np.array(gguf.dequantize(one.data, one.tensor_type)))
            if name.endswith("attn_q"):
                values = values.reshape(9, 32, 2, 576).swapaxes(1, 2).reshape(576, 576)
            assert torch.equal(stored.get_tensor(f"{own}.weight"), values.bfloat16())


def test_positions_are_scaled_as_the_file_says(tmp_path: Path) -> None:
    """Llama 3.1's factors, which transformers leaves out."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, **gguf_weights.LLAMA3}
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=scaled)
    wanted = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    factors = (plain / wanted).astype(np.float32)
    model = tiny_llama(hidden=64)
    for name, values in {"as.gguf": factors, "other.gguf": factors[::-1].copy()}.items():
        write(model, tmp_path / name, "Q8_0", extra={"rope_freqs.weight": values})
    folder = gguf_cache.expanded(tmp_path / "as.gguf")
    said = json.loads((folder / "config.json").read_text())["rope_parameters"]
    assert (said["rope_type"], said["factor"]) == ("llama3", pytest.approx(8))
    with pytest.raises(ModelError, match="scales its positions"):
        gguf_cache.expanded(tmp_path / "other.gguf")


def test_what_transformers_would_leave_out_is_refused(tmp_path: Path, cache: Path) -> None:
    write(tiny_llama(), tmp_path / "a.gguf", extra={"blk.0.more.weight": np.ones(32, np.float32)})
    with pytest.raises(ModelError, match="32 numbers more"):
        gguf_cache.expanded(tmp_path / "a.gguf")
    assert left(cache) == []


# --- once ----------------------------------------------------------------------------------------


def stub(head: gguf_file.GGUFFile, dtype: str, into: Path) -> str:
    into.mkdir()
    (into / "config.json").write_text('{"model_type": "llama", "hidden_size": 32}')
    return dtype


def test_it_is_written_out_once_whatever_it_is_called(
    sound: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(gguf_weights, "write", lambda *how: made.append(1) or stub(*how))
    (tmp_path / "b").mkdir()
    other = shutil.copy(sound, tmp_path / "b" / "other name.gguf")
    folder = gguf_cache.expanded(sound)
    assert gguf_cache.expanded(Path(other)) == folder == gguf_folder.folder_of(str(sound))
    assert len(made) == 1 and left(cache) == [folder.name]
    assert models.identity(models.ModelRef(str(folder)))["gguf"] == folder.name.split("-")[0]
    (folder / "config.json").write_text("{}")
    assert gguf_record.of(folder) is None, "what was changed is no longer what was made"
    assert gguf_cache.expanded(sound) == folder and len(made) == 2, "and is made again"
    with Path(other).open("ab") as file:
        file.write(b"\0" * 32)
    assert gguf_cache.expanded(Path(other)) != folder, "another content is another model"


def test_two_at_once_make_it_once(
    sound: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def slow(*how: Any) -> str:
        made.append(1)
        time.sleep(0.2)
        return stub(*how)

    monkeypatch.setattr(gguf_weights, "write", slow)
    every = [threading.Thread(target=gguf_cache.expanded, args=(sound,)) for _ in range(3)]
    for one in every:
        one.start()
    for one in every:
        one.join()
    assert len(made) == 1 and len(left(cache)) == 1


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"),
     RuntimeError("I/O error: No space left on device (os error 28)"), KeyboardInterrupt()],
    ids=["disk", "safetensors", "Ctrl-C"],
)  # fmt: skip
def test_a_full_disk_leaves_nothing(
    error: BaseException, sound: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*how: Any) -> str:
        stub(*how)
        raise error

    monkeypatch.setattr(gguf_weights, "write", fails)
    with pytest.raises((ModelError, KeyboardInterrupt)) as caught:
        gguf_cache.expanded(sound)
    if isinstance(caught.value, ModelError):
        assert "its disk is full" in str(caught.value) and "HOLDFAST_CACHE" in caught.value.remedy
    assert left(cache) == []


def test_no_room_is_told_before(sound: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ModelError, match="GiB free"):
        gguf_cache.expanded(sound)
    assert left(cache) == []


def test_what_a_killed_one_left_is_cleared(
    sound: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_weights, "write", stub)
    folder = gguf_cache.expanded(sound)
    shutil.rmtree(folder)
    (cache / f".{folder.name}.999999999-0123abcd.part").mkdir()
    assert left(cache) != []
    gguf_cache.expanded(sound)
    assert left(cache) == [folder.name]


def test_a_cache_that_cannot_be_written(sound: Path, cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(ModelError, match="the cache of models cannot be written"):
        gguf_cache.expanded(sound)


# --- bad ones ------------------------------------------------------------------------------------


def number(at: int, code: str, value: int) -> Edit:
    def change(raw: bytearray) -> bytearray:
        struct.pack_into(f"<{code}", raw, at, value)
        return raw

    return change


def entry(name: bytes, at: int, code: str, value: int) -> Edit:
    """Change what the table says of a tensor, `at` bytes behind its name (two dimensions)."""

    def change(raw: bytearray) -> bytearray:
        return number(raw.index(name) + len(name) + at, code, value)(raw)

    return change


def big_endian(raw: bytearray) -> bytes:
    return b"GGUF" + struct.pack(">I", 3) + raw[8:]


BROKEN: list[tuple[str, Edit, str]] = [
    ("empty", lambda raw: b"", "is empty"),
    ("three bytes", lambda raw: raw[:3], "is no GGUF file"),
    ("other magic", lambda raw: b"GGML" + raw[4:], "is no GGUF file"),
    ("a pointer", lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    ("version 1", number(4, "I", 1), "of version 1"),
    ("version 9", number(4, "I", 9), "of version 9"),
    ("big-endian", big_endian, "is big-endian"),
    ("endless fields", number(16, "Q", 1 << 60), "claims"),
    ("endless tensors", number(8, "Q", 1 << 60), "claims"),
    ("a tensor more", lambda raw: number(8, "Q", 1 + raw[8])(raw), r"\w"),
    ("half", lambda raw: raw[: len(raw) // 2], "is not whole|is torn"),
    ("the last byte", lambda raw: raw[:-40], "is not whole"),
    ("endless name", number(24, "Q", 1 << 62), "is torn"),
    ("unknown numbers", entry(b"blk.0.ffn_up.weight", 20, "I", 36), "cannot be written out"),
    ("no row of blocks", entry(b"blk.0.ffn_up.weight", 4, "Q", 33), "is damaged at"),
    ("no numbers", entry(b"blk.0.ffn_up.weight", 4, "Q", 0), "is damaged at"),
    ("overlap", entry(b"blk.0.ffn_up.weight", 24, "Q", 0), "overlap"),
    ("outside", entry(b"blk.0.ffn_up.weight", 24, "Q", 1 << 50), "is not whole"),
    ("crooked", entry(b"blk.0.ffn_up.weight", 24, "Q", 7), "is damaged at"),
    ("seven dimensions", entry(b"blk.0.ffn_up.weight", 0, "I", 7), "7 dimensions"),
    ("twice", lambda raw: raw.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight"), "damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), [one[1:] for one in BROKEN], ids=[n for n, *_ in BROKEN])
def test_bad_files(edit: Edit, said: str, sound: Path, tmp_path: Path, cache: Path) -> None:
    bad, started = tmp_path / "bad.gguf", time.monotonic()
    bad.write_bytes(edit(bytearray(sound.read_bytes())))
    with pytest.raises(ModelError, match=said) as caught:
        models.reference(ModelSpec(id=str(bad)))
    assert caught.value.where == str(bad) and caught.value.remedy and caught.value.exit_code == 3
    assert time.monotonic() - started < 10
    assert not cache.exists() or left(cache) == []


def test_torn_at_any_place(sound: Path, tmp_path: Path) -> None:
    raw, bad = sound.read_bytes(), tmp_path / "bad.gguf"
    assert gguf_head.read(sound).architecture == "llama"
    for size in [*range(0, 3000, 7), *range(3000, len(raw) - 32, 997)]:
        bad.write_bytes(raw[:size])
        with pytest.raises(ModelError):
            gguf_head.read(bad)


@pytest.mark.parametrize(
    ("name", "also", "extra", "said"),
    [
        ("m-00001-of-00002.gguf", {}, {}, "one part of a model that was split"),
        ("m.gguf", {"architecture": "clip"}, {}, "projector for pictures"),
        ("m.gguf", {"tokens": False}, {}, "has no tokenizer"),
        ("m.gguf", {}, {"blk.0.attn_q.weight.lora_a": np.ones(32, np.float32)}, "an adapter"),
        ("m.gguf", {"architecture": "mamba9"}, {}, "mamba9"),
    ],
    ids=["split", "mmproj", "no tokenizer", "LoRA", "architecture"],
)
def test_no_whole_language_model(
    name: str, also: dict[str, Any], extra: dict[str, Any], said: str, tmp_path: Path, cache: Path
) -> None:
    write(tiny_llama(), tmp_path / name, extra=extra, **also)
    with pytest.raises(ModelError, match=said) as caught:
        models.reference(ModelSpec(id=str(tmp_path / name)))
    assert caught.value.where == str(tmp_path / name), "the file, and no config.json"
    assert caught.value.remedy and "fetch it again" not in caught.value.remedy
    assert not cache.exists() or left(cache) == []


def test_it_is_told_before_a_study_is_begun(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "half.gguf").write_bytes(sound.read_bytes()[:9000])
    words = ["run", "study.yaml", f"model={tmp_path}/half.gguf", "--runs-dir", str(tmp_path / "r")]
    (tmp_path / "study.yaml").write_text(STUDY)
    words[1] = str(tmp_path / "study.yaml")
    assert cli.call(words) == 3
    assert "half.gguf: is" in capsys.readouterr().err and not (tmp_path / "r").exists()


# --- a study -------------------------------------------------------------------------------------

STUDY = """\
name: small
model: {base: ., gguf: tiny.gguf}
tasks: {lab_math: {role: target, items: 2, train_items: 4}}
train: {max_steps: 1, checkpoints: 1, global_batch_size: 2, lora: {r: 2}}
meters: {probes: 0}
answer: {sampling: {max_new_tokens: 4}, repeats: 1}
arms: {sft: {}}
"""


def measured(file: Path, called: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> Path:
    """Dry run, run, and the same again; returns the run folder."""
    shutil.copy(file, tmp_path / "tiny.gguf")
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ["run", str(tmp_path / "study.yaml"), "--runs-dir", str(tmp_path / "runs")]
    assert cli.call([*words, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "its weights were written out in bfloat16 once" in said
    assert cli.call(words) == 0
    run = tmp_path / "runs" / "small"
    made = store.read_json(run / "environment.json")["gguf"]
    assert made["file"] == called and made["dtype"] == "bfloat16"
    assert made["seconds"] >= 0 and made["bytes_written"] > 0
    shutil.move(tmp_path / "tiny.gguf", tmp_path / "moved.gguf")
    before = {one: one.stat().st_mtime_ns for one in run.rglob("replies.jsonl")}
    capsys.readouterr()
    assert cli.call([*words, f"model={tmp_path}/moved.gguf"]) == 0
    assert len(before) == 2, "base and sft"
    assert before == {one: one.stat().st_mtime_ns for one in run.rglob("replies.jsonl")}
    return run


def test_a_study_of_a_gguf_file(
    sound: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    run = measured(sound, "tiny.gguf", tmp_path, capsys)
    assert len(left(cache)) == 1
    assert read_shape(str(tmp_path / "moved.gguf")).hidden == 32
    shutil.rmtree(cache)
    words = ["ship", str(run), "--to", str(tmp_path / "out"), "--anyway"]
    assert cli.call(words) == 2, "exported, and the answer stays that it may not be shipped"
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "GGUF file `moved.gguf` (Q8_0, sha256" in card and "GgufConfig(dequantize=True)" in card


@pytest.mark.real
def test_a_study_of_a_real_gguf_file(
    smollm2: Path, smollm2_gguf: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its weights were written out by the script that fetched it; here they are linked."""
    cache.mkdir(parents=True)
    made = gguf_record.of(smollm2)
    assert made is not None
    os.symlink(smollm2, cache / gguf_folder.folder_name(made.sha256))
    measured(smollm2_gguf, "smollm2.gguf", tmp_path, capsys)
    assert len(left(cache)) == 1


def test_one_of_several_is_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="holds 2 GGUF files"):
        models.reference(ModelSpec(id=str(tmp_path)))
    given = ModelSpec.model_validate({"base": "org/repo", "gguf": "x.gguf"})
    assert given.id == "org/repo/x.gguf"
    assert gguf_folder.in_repository("org/repo/x.gguf") == ("org/repo", "x.gguf")

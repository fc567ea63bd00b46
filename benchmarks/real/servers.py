"""Real servers against the model loaded here: prompts, greedy answers, adapters.

    python benchmarks/real/servers.py [--items 32] [--tokens 48] [vllm transformers llama.cpp]

SmolLM2-135M-Instruct in float32 on both sides (llama.cpp: its Q4_1 file, which is what the folder
was made of). The prompts are compared token for token where the server tells its tokens, else by
number; answers letter for letter. An answer that differs once goes on differently, so the share of
the answer before the first difference is told as well. The adapter is a random one of rank 8.
Servers that are not there are named and left out (`benchmarks/real/serve.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.real.serve import KINDS, PLACE, Served, lacking
from holdfast import environment
from holdfast.config import Sampling
from holdfast.endpoint import Endpoint, parse_url
from holdfast.engines.hf import HFEngine
from holdfast.engines.remote import RemoteEngine
from holdfast.errors import HoldfastError
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message, Reply

ASKED = (
    "What is {a} plus {b}?", "Name {a} animals that live in water.",
    "Write one sentence about the number {b}.", "Which is larger, {a} or {b}, and why?",
)  # fmt: skip


def questions(items: int) -> list[Example]:
    """So many harmless questions, no two alike; every fourth has a system prompt or a past."""
    found = []
    for i in range(items):
        text = ASKED[i % len(ASKED)].format(a=i + 2, b=3 * i + 1)
        turns = [Message("user", text)]
        if i % 4 == 1:
            turns = [Message("system", "You answer in one sentence."), *turns]
        if i % 4 == 2:
            turns = [Message("user", "Hello!"), Message("assistant", "Hello."), *turns]
        found.append(Example(f"q{i}", tuple(turns)))
    return found


def make_adapter(model: Path, into: Path) -> None:
    """A random LoRA adapter that changes what is said without breaking it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1126)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    for name, one in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.1)
    tuned.save_pretrained(into)


def alike(far: Sequence[Sequence[Reply]], near: Sequence[Sequence[Reply]]) -> tuple[int, float]:
    """How many answers agree letter for letter, and the mean share before the first difference."""
    same, shares = 0, []
    for (a,), (b,) in zip(far, near, strict=True):
        same += a.text == b.text
        pairs = list(zip(a.text, b.text, strict=False))
        first = next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))
        shares.append(first / max(len(a.text), len(b.text), 1))
    return same, sum(shares) / len(shares)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    model, examples = PLACE / "smollm2", questions(asked.items)
    sampling, ref = Sampling(max_new_tokens=asked.tokens), ModelRef(str(model))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_adapter(model, folder / "adapter")
        adapter = str(folder / "adapter")
        with HFEngine(ref, "cpu", "float32") as here:
            near = {
                who: here.generate(examples, sampling, *how)
                for who, how in (("base", (None, Silent())), ("adapter", (adapter, Silent())))
            }
        versions = environment.versions()
        print(
            f"SmolLM2-135M-Instruct, {asked.items} questions, {asked.tokens} new tokens, greedy; "
            f"here: transformers {versions['transformers']}, torch {versions['torch']}, float32, "
            "CPU.\n"
        )
        print("| server | prompts alike | base alike | before 1st difference | adapter alike |")
        print("|---|---|---|---|---|")
        for kind in asked.kinds:
            print("| " + " | ".join(row(kind, model, folder, examples, sampling, near)) + " |")


def row(
    kind: str,
    model: Path,
    folder: Path,
    examples: Sequence[Example],
    sampling: Sampling,
    near: dict[str, list[list[Reply]]],
) -> list[str]:
    """One server's line."""
    if why := lacking(kind):
        return [kind, f"left out: {why}", "", "", ""]
    file = PLACE / "smollm2.gguf" if kind == "llama.cpp" else model
    with Served(kind, file, folder / f"{kind}.log") as server:
        endpoint = Endpoint(parse_url(server.address))
        with RemoteEngine(ModelRef(str(model)), endpoint=endpoint) as far:
            from holdfast.engines.prompt_proof import PromptProof

            proof, told = PromptProof(ModelRef(str(model)), server.url), 0
            with endpoint.running() as running:
                for one in examples:
                    ids = running.prompt_ids(endpoint.request(one.messages, 1))
                    told += ids == proof.ids(one)
            replies = far.generate(examples, sampling, None, Silent())
            how = f"{told} of {len(examples)}, by tokens" if told else "all, by number of tokens"
            same, share = alike(replies, near["base"])
            try:
                tuned = far.generate(examples, sampling, str(folder / "adapter"), Silent())
                adapted = f"{alike(tuned, near['adapter'])[0]} of {len(examples)}"
            except HoldfastError as error:
                adapted = error.message
    return [kind, how, f"{same} of {len(examples)}", f"{share:.0%} of the letters", adapted]


if __name__ == "__main__":
    main()

"""How an export is used: code that loads it, and the command line of a server."""

from __future__ import annotations

import shlex
from pathlib import Path

from holdfast.engines.vllm.servable import rank_of, refused_adapter
from holdfast.engines.vllm.settings import lora_rank
from holdfast.runs import store
from holdfast.shipping.export import Form
from holdfast.shipping.gguf import FILE

MODELFILE = "Modelfile"
OLLAMA = """\
# ollama create {name} -f Modelfile; Holdfast did not run this.
FROM ./{file}
PARAMETER temperature 0
PARAMETER num_predict {tokens}
"""

ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{more}

base = AutoModelForCausalLM.from_pretrained({base}, {how})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained({base})
"""
WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
"""
GGUF = """\
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

here = {{"pretrained_model_name_or_path": "path/to/this/folder", "gguf_file": "{file}"}}
model = AutoModelForCausalLM.from_pretrained(
    **here, dtype="auto", quantization_config=GgufConfig(dequantize=True)
)
tokenizer = AutoTokenizer.from_pretrained(**here)
"""


def loading(form: Form, base: str, how: str, more: str) -> str:
    """Python code that loads an export.

    Args:
        form: of the export.
        base: arguments that name an adapter's base.
        how: further ones, for its weights.
        more: further imports.
    """
    if form == "gguf":
        return GGUF.format(file=FILE)
    return ADAPTER.format(base=base, how=how, more=more) if form == "adapter" else WHOLE


def serving(form: Form, base: str, name: str, folder: Path) -> str:
    """The card's section on servers; for an adapter that none takes, why.

    Args:
        form: of the export.
        base: an adapter's base, as its user names it.
        name: for the server.
        folder: of the export.
    """
    line = "vllm serve path/to/this/folder"
    if form == "gguf":
        line = f"llama-server -m {FILE} --jinja\nollama create {name} -f {MODELFILE}"
    elif form == "nf4":
        line += " --quantization bitsandbytes"
    elif form == "adapter":
        if why := refused_adapter(folder):
            return f"## Serving\n\nvLLM does not take this adapter: {why}. Export it merged."
        line = (
            f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank "
            f"{lora_rank(rank_of(folder))} --lora-modules {name}=path/to/this/folder"
        )
    return (
        f"## Serving\n\n```bash\n{line}\n```\n\nA server decodes in its own way; the figures above "
        "are of how it was measured."
    )


def write_modelfile(folder: Path, name: str, tokens: int) -> None:
    """Write Ollama's Modelfile beside the GGUF file.

    Args:
        folder: of the export.
        name: for the command that it tells.
        tokens: longest answer that was measured.
    """
    text = OLLAMA.format(name=name, file=FILE, tokens=tokens)
    store.write_text(folder / MODELFILE, text)

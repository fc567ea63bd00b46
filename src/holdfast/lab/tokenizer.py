"""The lab's tokenizer: a closed vocabulary of words and of numbers up to 99.

One token per word, with its leading space, as in GPT-2's pre-tokenisation but without subwords:
" apples" and "apples" are two tokens and decoding is plain concatenation, so text survives the
round trip. Numbers are one token up to 99. A word outside the closed vocabulary becomes "<unk>".
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<|im_start|>", "<|im_end|>"
LONGEST = 512  # tokens
_PATTERN = r" ?[A-Za-z]+(?:'[a-z]+)?| ?#+| ?\d{1,2}|\n| ?[^\sA-Za-z0-9#]|\s"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def split_words(text: str) -> list[str]:
    """Cut a text into the pieces that are tokens where the vocabulary knows them."""
    return re.findall(_PATTERN, text)


def make_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """Build the tokenizer whose vocabulary is every piece of `texts` and all numbers to 99."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = {piece for text in texts for piece in split_words(text)}
    pieces |= {f"{space}{number}" for number in range(100) for space in ("", " ")}
    pieces |= {"\n", " ", "system", "user", "assistant"}
    vocabulary = [PAD, UNKNOWN, START, END, *sorted(pieces)]
    core = Tokenizer(
        models.WordLevel({piece: at for at, piece in enumerate(vocabulary)}, unk_token=UNKNOWN)
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer saved in a model folder."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    return tokenizer

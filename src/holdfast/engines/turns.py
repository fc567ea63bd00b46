"""Cuts what a model says where it begins to speak for others: its own turn is what is read.

A base model answers and runs on into a next question, often with an answer to that too. The next
turn begins at a line that opens one (``Question:``, ``### Instruction``, ``User:``), at a token
that does, or where its own turn is closed by one. A reply that begins by asking its question
once more has not answered yet.
"""

from __future__ import annotations

import re
from typing import Final

from holdfast.data.thinking import split

_ASKS: Final = (
    "question|q|problem|exercise|user|human|student|query|customer"
    "|frage|aufgabe|benutzer|nutzer|problème|exercice|utilisateur|pregunta|problema|ejercicio"
    "|usuario|pergunta|exercício|usuário|domanda|esercizio|utente|вопрос|задача|пользователь"
    "|问题|問題|问|問|题目|題目|用户|用戶|提问|人类|练习|質問|問い|ユーザー|질문|문제|사용자"
    "|प्रश्न|सवाल|उपयोगकर्ता|سؤال|السؤال|مسألة|المستخدم"
)
_NUMBERED: Final = (
    "example|task|instruction|input|prompt|test|puzzle|例|例题|beispiel|exemple|ejemplo"
)
_HEADS: Final = "instruction|instructions|input|prompt|task|query|next question|new question"
_WORD: Final = (
    rf"(?:(?:{_ASKS})(?:\s?#?\d{{1,4}}(?!\.\d))?[*_ ]{{0,3}}\s?[:：>]"
    rf"|(?:{_ASKS}|{_NUMBERED})\s?#?\d{{1,4}}(?!\.?\d)[*_ ]{{0,3}}(?:[:：.)]|[ \t]*(?=\n))"
    r"|第\s?[0-9一二三四五六七八九十]{1,3}\s?[题題问問])"
)
_LINE: Final = re.compile(
    rf"^(?=[ \t>*_\#\[]{{0,20}}\w)(?:[ \t>*_]{{0,8}}{_WORD}"
    rf"|[ \t]{{0,4}}\#{{1,6}}[ \t*_]{{0,6}}(?:{_WORD}|(?:{_ASKS}"
    rf"|{_HEADS})[*_ ]{{0,3}}[:：]?[ \t]*$)"
    r"|[ \t]{0,4}\[(?:question|problem|user|human|inst)\])",
    re.MULTILINE | re.IGNORECASE,
)
_INLINE: Final = re.compile(
    r"(?<=[.!?。！？\d*}])[ \t]{1,4}(?:Question|Q|Problem|User|Human)(?:\s?\d{1,3})?:\s(?=\w)"
)
_CLOSES: Final = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|eot)\|>|<end_of_turn>|</s>|<eos>"
    r"|<｜end▁of▁sentence｜>|\[/?EOS\]"
)
_TOKEN: Final = re.compile(
    r"<\|(?:im_start|start_header_id)\|>\s*(?:user|system|human)|<start_of_turn>\s*user"
    r"|<[|｜](?:user|human|User|Human|system|prompter)[|｜]>|\[INST\]|<s>\s*\[INST\]"
    rf"|{_CLOSES.pattern}"
)
_OPENS: Final = re.compile(
    r"(?:\s|<s>|<bos>|<(?:start_of_turn>model|\|[^<>|\s]{1,40}\|>(?:assistant)?)|\[/INST\])+"
)
"""What opens a model's own turn."""
_LEAD_IN: Final = re.compile(
    r"[^\n\d]{0,200}[:：]|(?i:sure|certainly|of course|okay|ok|let['’]?s|let me|here|to solve|we"
    r"|first|好的|当然|我们|让我们)\b[^\n\d]{0,200}"
    r"|(?i:given|known|understand\w*|information|facts|what we know|data|已知|条件"
    r"|條件)(?!\w)[^=]{0,600}"
)
"""Such a beginning leads up to an answer and is none, though it may say what is given."""


def own_turn(text: str, closed: bool = True) -> str:
    """A reply up to where the next turn begins, without thinking and the tokens around it.

    Args:
        text: as it was said.
        closed: a token that closes its own turn ends it, whatever follows.
    """
    said = split(text).answer
    opened = _OPENS.match(said)
    said = said[opened.end() :] if opened else said
    for match in _TOKEN.finditer(said) if "<" in said or "[" in said else ():
        if (closed or not _CLOSES.fullmatch(match[0])) and said[: match.start()].strip():
            said = said[: match.start()]
            break
    cuts = [*_LINE.finditer(said), *_INLINE.finditer(said)]
    for match in sorted(cuts, key=lambda one: one.start()):
        if _answers(said[: match.start()]):
            return said[: match.start()].rstrip()
    return said


def _answers(before: str) -> bool:
    """Whether something was said before a next turn, beyond leading up to its own answer."""
    bare = before.strip(" \t\r\n*_#>-")
    return bool(bare) and _LEAD_IN.fullmatch(bare) is None

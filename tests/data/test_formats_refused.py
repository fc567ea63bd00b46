"""Is every row that cannot be used as it is refused, with row, column, reason and remedy?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.data.formats import conversation
from holdfast.data.questions import unanswered
from holdfast.errors import DataError

ASKED, SAID = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
CALL = {"name": "weather", "arguments": {"city": "Brno"}}
NAN = float("nan")
QUESTION, FORMS = {"question": "2+2?"}, "columns: {prompt: my_question, completion: my_answer}"


def _turns(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(turns), **more}


def _said(content: Any, **more: Any) -> dict[str, Any]:
    return _turns(ASKED, {"role": "assistant", "content": content, **more})


REFUSED: list[tuple[Any, str, str, str]] = [
    # the row, where in it, what is wrong, what to do
    (3, "", "is the number 3, not a JSON object", FORMS),
    (None, "", "is null, not a JSON object", FORMS),
    ([1, 2, 3], "", "is a list of 3, not a JSON object", FORMS),
    ("text", "", "is the text 'text', not a JSON object", FORMS),
    ({}, "", "none of the known forms (its keys: none)", FORMS),
    ({"frage": "2+2?", "antwort": "4"}, "", "(its keys: frage, antwort)", FORMS),
    ({"\x1b[31mred\x07": 1}, "", "(its keys: \\x1b[31mred\\x07)", FORMS),
    ({1: 2}, "", "(its keys: 1)", FORMS),
    ({"completion": "4"}, "", "has `completion` but no question", FORMS),
    # turns
    ({"messages": "hi"}, "messages", "is the text 'hi', which is no JSON", "json.dumps"),
    ({"messages": "[{'role': 'user'}]"}, "messages", "no JSON", "not with str()"),
    ({"messages": '[{"role": "user", "role": "user"}]'}, "messages", "'role' is there twice", ""),
    ({"messages": '[NaN]'}, "messages", "NaN is no JSON value", ""),
    ({"messages": "[" * 9999}, "messages", "no JSON", "json.dumps"),
    ({"messages": 5}, "messages", "is the number 5, not a list of turns", "a turn is {"),
    ({"messages": []}, "messages", "holds no turn", "a turn is {"),
    ({"messages": ""}, "", "none of the known forms", FORMS),
    ({"conversations": {"a": 1}}, "conversations", "is an object (its keys: a)", "a turn is {"),
    ({"messages": {"role": ["user"], "content": ["a", "b"]}}, "messages", "not a list", ""),
    (_turns("hello"), "messages: turn 1", "is the text 'hello', not an object", "a turn is {"),
    (_turns(ASKED, 2), "messages: turn 2", "is the number 2, not an object", "a turn is {"),
    (_turns({"content": "x"}), "messages: turn 1", "has no role", "roles: system, developer"),
    (_turns({"role": "evil", "content": "x"}), "turn 1", "the role 'evil', which", "roles: system"),
    (_turns({"role": 3, "content": "x"}), "turn 1", "the role the number 3", "roles: system"),
    (_turns({"role": "user", "from": "gpt", "content": "x"}), "turn 1", "role and from", "keep"),
    (_turns({**ASKED, "value": "3+3?"}), "turn 1 (user)", "content and value", "keep one"),
    (_turns({"role": "user"}), "turn 1 (user)", "has no content", "a turn is {"),
    (_turns({"role": "user", "content": None}), "turn 1 (user)", "says nothing", "fill the turn"),
    (_turns({"role": "user", "content": " \n"}, SAID), "turn 1 (user)", "says nothing", "leave"),
    (_turns({"role": "user", "content": 5}), "turn 1 (user)", "the number 5 where text", "text"),
    (_turns({"role": "user", "content": True}), "turn 1 (user)", "is true where text", "text"),
    (_turns({"role": "user", "content": {"a": 1}}), "turn 1 (user)", "an object (its", "one text"),
    (_turns({"role": "system", "content": None}, ASKED), "turn 1 (system)", "no content", ""),
    (_turns({"role": "user", "content": "a\0b"}), "turn 1 (user)", "NUL", "write the row again"),
    (_turns({"role": "user", "content": "a\ud800"}), "turn 1 (user)", "surrogate", "whole"),
    (_said(""), "turn 2 (assistant)", "says nothing", "leave the row out"),
    (_said(None), "turn 2 (assistant)", "says nothing", "leave the row out"),
    (_said(NAN), "turn 2 (assistant)", "says nothing", "leave the row out"),
    (_said([]), "turn 2 (assistant)", "says nothing", "leave the row out"),
    (_said("", reasoning_content="hm"), "turn 2", "says nothing but its reasoning", "fill"),
    (_said("4", reasoning="a", thinking="b"), "turn 2", "reasoning and thinking", "keep one"),
    (_said("4", reasoning_content=["hm"]), "turn 2 (assistant): reasoning_content", "a list", ""),
    (_turns({**ASKED, "thinking": "hm"}), "turn 1 (user)", "has a reasoning", "assistant's"),
    # parts
    (_turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}),
     "turn 1 (user): part 1", "'image_url'", "images, audio or video"),
    (_turns({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "audio"}]}),
     "turn 1 (user): part 2", "'audio'", "images, audio or video"),
    (_turns({"role": "user", "content": [{"type": "text", "text": "x", "image": "u"}]}),
     "part 1", "'image'", "images"),
    (_turns({"role": "user", "content": [{"type": "text"}]}), "part 1", "'text'", ""),
    (_turns({"role": "user", "content": [{"type": "text", "text": 5}]}), "part 1", "number 5", ""),
    (_turns({"role": "user", "content": [5]}), "part 1", "is the number 5, not a part", "type"),
    (_said([{"type": "tool_use", "name": "f", "input": {}}]), "part 1", "'tool_use'", ""),
    # order
    (_turns(SAID), "", "has no user turn to answer", "a user's turn and the assistant's answer"),
    (_turns({"role": "system", "content": "s"}, SAID), "", "no user turn", "a user's turn"),
    (_turns(ASKED, {"role": "system", "content": "s"}, SAID), "", "ends with the turn of a system",
     "a user's turn"),
    (_turns(ASKED, SAID, SAID), "", "turns 2 and 3 are both the assistant's", "join them"),
    (_turns(ASKED, SAID, SAID, ASKED), "", "turns 2 and 3 are both the assistant's", "join them"),
    (_turns(ASKED, {"role": "tool", "content": "7"}, SAID), "", "turn 2 is a tool's answer",
     "tool call before it"),
    # weights
    (_said("4", weight=0.5), "turn 2 (assistant): weight", "the number 0.5", "0 or 1"),
    (_said("4", weight="0"), "turn 2 (assistant): weight", "the text '0'", "0 or 1"),
    (_said("4", weight=2), "turn 2 (assistant): weight", "the number 2", "0 or 1"),
    (_said("4", weight=0, train=True), "turn 2", "is counted and is not", "keep one"),
    (_turns({**ASKED, "weight": 1}, SAID), "turn 1 (user)", "a weight of 1", "leave the weight"),
    ({**QUESTION, "answer": "4", "weight": 63.5}, "weight", "the number 63.5", "0 or 1"),
    # tools
    (_turns(ASKED, SAID, tools="weather"), "tools", "which is no JSON", "json.dumps"),
    (_turns(ASKED, SAID, tools=5), "tools", "is the number 5, not a list of tools", "function"),
    (_turns(ASKED, SAID, tools=["weather"]), "tools: tool 1", "no JSON", ""),
    (_turns(ASKED, SAID, tools=[{"description": "x"}]), "tools: tool 1", "no function", "name"),
    (_turns(ASKED, SAID, tools=[{"function": "f"}]), "tools: tool 1", "no function", "name"),
    (_turns(ASKED, SAID, tools=[{"name": "f"}], functions=[{"name": "g"}]), "functions",
     "beside `tools`", "keep one"),
    (_turns({"role": "system", "content": "s", "tools": [CALL]}, ASKED, SAID), "turn 1 (system)",
     "`tools` of its own", "beside the list of turns"),
    (_said(None, tool_calls=[{"id": "c"}]), "turn 2", "names no function", '"arguments"'),
    (_said(None, tool_calls=5), "turn 2", "is the number 5, not a tool call", '"arguments"'),
    (_said(None, tool_calls="weather()"), "turn 2", "no JSON", ""),
    (_said(None, tool_calls=[{"name": "f", "arguments": "city"}]), "arguments", "no JSON", ""),
    (_said(None, tool_calls=[{"name": "f", "arguments": "[1]"}]), "turn 2", "with a list of 1 as",
     "by name"),
    (_said(None, tool_calls=[CALL], function_call=CALL), "turn 2", "both tool_calls and", "alone"),
    (_turns({**ASKED, "tool_calls": [CALL]}), "turn 1 (user)", "has tool calls", "assistant's"),
    ({"conversations": [ASKED, {"from": "function_call", "value": "weather in Brno"}]},
     "conversations: turn 2 (function_call)", "which is no JSON", "json.dumps"),
    ({"conversations": [ASKED, {"from": "function_call", "value": ""}]}, "turn 2 (function_call)",
     "no JSON", ""),
    # questions
    ({"question": ""}, "question", "is empty", "leave the row out"),
    ({"question": "  ", "answer": "4"}, "question", "is empty", "fill `question`"),
    ({"prompt": NAN, "completion": "4"}, "prompt", "is empty", "fill `prompt`"),
    ({"question": 5, "answer": "4"}, "question", "the number 5 where text is meant", "in quotes"),
    ({"question": ["a"], "answer": "4"}, "question", "a list of 1 where text is meant", "one text"),
    ({"instruction": "a", "input": 5, "output": "b"}, "input", "the number 5", "in quotes"),
    ({"instruction": "a", "input": [], "output": "b"}, "input", "a list of 0", "one text"),
    ({"instruction": "a", "input": False, "output": "b"}, "input", "is false", "in quotes"),
    ({"prompt": "a", "question": "b", "answer": "4"}, "", "`prompt` and `question`: which", "keep"),
    ({**QUESTION, "answer": "4", "context": {"a": 1}}, "context", "an object", "one text"),
    ({**QUESTION, "answer": "4", "system": 7}, "system", "the number 7", "in quotes"),
    ({**QUESTION, "answer": "4", "system": "a", "system_prompt": "b"}, "system_prompt", "differs",
     "keep one"),
    (_turns({"role": "system", "content": "a"}, ASKED, SAID, system="b"), "system", "another",
     "keep one"),
    # answers
    ({**QUESTION, "answer": NAN}, "answer", "is NaN", "leave it out"),
    ({**QUESTION, "answer": float("inf")}, "answer", "the number inf where text is", "in quotes"),
    ({**QUESTION, "answer": True}, "answer", "is true where text is meant", "in quotes"),
    ({**QUESTION, "answer": 4.0}, "answer", "is 4 or 4.0 meant", "in quotes"),
    ({**QUESTION, "answer": 1e-30}, "answer", "the number 1e-30", "in quotes"),
    ({**QUESTION, "answer": 10**400}, "answer", "a huge number", "in quotes"),
    ({**QUESTION, "answer": ["4", "four"]}, "answer", "a list of 2 where one", "(one|other)"),
    ({**QUESTION, "answer": {"value": 4}}, "answer", "an object (its keys: value)", "one text"),
    ({**QUESTION, "answer": "a\0"}, "answer", "NUL", "write the row again"),
    ({**QUESTION, "response": "4", "output": "5"}, "", "`output` and `response` beside", "keep"),
    ({**QUESTION, "answer": "4", "reasoning_content": ["a"]}, "reasoning_content", "a list", ""),
    (_said("4", reasoning_content="a") | {"reasoning": "b"}, "reasoning", "differs", "keep one"),
    ({"prompt": "2+2?", "completion": "4", "label": False}, "label", "wanted (false)", "true"),
    ({"prompt": [ASKED, SAID], "completion": "4"}, "", "turns 2 and 3 are both", "join them"),
    # history
    ({"query": "q", "response": "a", "history": "x"}, "history", "no JSON", "json.dumps"),
    ({"query": "q", "response": "a", "history": ["x"]}, "history: pair 1", "the text 'x'", "[[\"q"),
    ({"query": "q", "response": "a", "history": [["x"]]}, "history: pair 1", "list of 1", "[[\"q"),
    ({"query": "q", "response": "a", "history": [["x", None]]}, "history: pair 1", "null", ""),
    ({"query": "q", "response": "a", "history": [["x", ""]]}, "history: pair 1", "nothing", "fill"),
    ({"prompt": [ASKED], "completion": "a", "history": [["x", "y"]]}, "history", "list of turns",
     "put all turns"),
    (_turns({**ASKED, "images": ["a.png"]}, SAID), "turn 1 (user)", "has `images`", "leave such"),
    # other data
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "", "preference pair", "completion: chosen"),
    ({"chosen": "a", "rejected": "b"}, "", "a preference pair", "completion: chosen"),
    (_turns(ASKED, chosen="a", rejected="b"), "", "a preference pair", "completion: chosen"),
    ({"text": ""}, "text", "is empty", "leave the row out"),
    ({"text": ["a"]}, "text", "a list of 1 where text is meant", "one text"),
    ({"text": "Fine film.", "label": 1}, "", "is the text a question", "completion: label"),
    (_turns(ASKED, SAID, images=["a.png"]), "images", "only text is trained on", "leave"),
    ({**QUESTION, "answer": "4", "image": {"bytes": "x"}}, "image", "only text", "leave `image`"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: str(case[0])[:60])
def test_rows_that_cannot_be_used_are_refused(case: tuple[Any, str, str, str]) -> None:
    row, column, reason, remedy = case
    with pytest.raises(DataError) as caught:
        conversation(row, "f.jsonl:7")
    assert caught.value.where.startswith("f.jsonl:7")
    assert column in caught.value.where
    assert bool(column) == (caught.value.where != "f.jsonl:7")
    assert any(one in caught.value.message for one in reason.split("|")), caught.value.message
    assert caught.value.remedy and any(one in caught.value.remedy for one in remedy.split("|"))
    assert "mend this line" not in caught.value.remedy
    assert str(caught.value).replace("\n", "").isprintable()


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) >= 100


@pytest.mark.parametrize(
    ("row", "reason", "remedy"),
    [
        ({"question": "q", "answer": ""}, "`answer` is empty", "fill `answer`"),
        ({"question": "q", "answer": None}, "`answer` is empty", "fill `answer`"),
        ({"instruction": "q"}, "has no `output` beside `instruction`", "completion: my_answer"),
        ({"query": "q"}, "has no `response` beside `query`", "completion: my_answer"),
        ({"messages": [ASKED]}, "has no answer", "end the conversation with an assistant turn"),
    ],
)
def test_a_row_without_an_answer(row: dict[str, Any], reason: str, remedy: str) -> None:
    assert conversation(row, "f:7").target is None
    error = unanswered(row, "f:7")
    assert reason in error.message
    assert remedy in error.remedy
    assert error.where == "f:7"


def test_no_value_of_python_s_own_way_of_writing_becomes_text() -> None:
    """In each column that means text, each kind of value is refused or is a number of an answer."""
    odd = [True, ["a"], {"a": 1}, float("inf"), 1e300]
    whole = {"instruction": "q", "input": "i", "output": "a", "system": "s", "context": "c",
             "reasoning_content": "r"}  # fmt: skip
    for column in whole:
        for value in odd:
            with pytest.raises(DataError) as caught:
                conversation({**whole, column: value}, "f:7")
            assert caught.value.where == f"f:7: {column}", (column, value)
    assert "True" not in json.dumps(whole)

"""Is every form of a row read as it was meant, to the letter?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.data.formats import Row, conversation
from holdfast.data.questions import QUESTIONS
from holdfast.types import Message

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Brno"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
Q, A = Message("user", "2+2?"), Message("assistant", "4")
ASKED, SAID = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}


def _calls(content: str = "", **more: Any) -> Message:
    return Message("assistant", content, {"tool_calls": [CALL], **more})


def _row(*messages: Message, target: str | None = "4", **more: Any) -> Row:
    return Row(messages, target, **more)


FORMS: dict[str, tuple[dict[str, Any], Row]] = {
    "messages": ({"messages": [ASKED, SAID]}, _row(Q)),
    "messages with a system turn": (
        {"messages": [{"role": "system", "content": "Be brief."}, ASKED, SAID]},
        _row(Message("system", "Be brief."), Q),
    ),
    "an empty system turn stays: templates put their own text where there is none": (
        {"messages": [{"role": "system", "content": ""}, ASKED, SAID]},
        _row(Message("system", ""), Q),
    ),
    "messages as JSON": ({"messages": json.dumps([ASKED, SAID])}, _row(Q)),
    "messages as an object of lists": (
        {"messages": {"role": ["user", "assistant"], "content": ["2+2?", "4"]}},
        _row(Q),
    ),
    "developer": (
        {"messages": [{"role": "developer", "content": "Be brief."}, ASKED, SAID]},
        _row(Message("developer", "Be brief."), Q),
    ),
    "conversations": (
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        _row(Q),
    ),
    "mixed spellings": (
        {"conversations": [{"role": "human", "value": "2+2?"}, {"from": "GPT", "content": "4"}]},
        _row(Q),
    ),
    "conversation": ({"conversation": [ASKED, SAID]}, _row(Q)),
    "conversation of pairs (XTuner)": (
        {"conversation": [{"system": "s", "input": "1+1?", "output": "2"},
                          {"input": "2+2?", "output": "4"}]},
        _row(Message("system", "s"), Message("user", "1+1?"), Message("assistant", "2"), Q),
    ),
    "sharegpt with system and tools beside the turns": (
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
         "system": "You are a pirate.", "tools": json.dumps([TOOL["function"]])},
        _row(Message("system", "You are a pirate."), Q, tools=(TOOL,)),
    ),
    "functions": ({"messages": [ASKED, SAID], "functions": [TOOL["function"]]},
                  _row(Q, tools=(TOOL,))),
    "tools: none": ({"messages": [ASKED, SAID], "tools": "[]"}, _row(Q)),
    "the system prompt twice, alike": (
        {"messages": [{"role": "system", "content": "s"}, ASKED, SAID], "system": "s"},
        _row(Message("system", "s"), Q),
    ),
    "several answers": (
        {"messages": [ASKED, SAID, {"role": "user", "content": "+1?"},
                      {"role": "assistant", "content": "5"}]},
        _row(Q, A, Message("user", "+1?"), target="5"),
    ),
    "begins with the assistant": (
        {"conversations": [{"from": "gpt", "value": "Hello!"}, {"from": "human", "value": "2+2?"},
                           {"from": "gpt", "value": "4"}]},
        _row(Message("assistant", "Hello!"), Q),
    ),
    "ends with the user": ({"messages": [ASKED, SAID, ASKED]}, _row(Q, A, Q, target=None)),
    "content as parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+"}, "2?"]},
                      {"role": "assistant", "content": [{"type": "text", "text": "4",
                                                         "image": None}]}]},
        _row(Q),
    ),
    "thinking as a part": (
        {"messages": [ASKED, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "two and two"}, {"type": "text", "text": "4"}]}]},
        _row(Q, extra={"reasoning_content": "two and two"}),
    ),
    "think tags are text": (
        {"messages": [ASKED, {"role": "assistant", "content": "<think>hm</think>4"}]},
        _row(Q, target="<think>hm</think>4"),
    ),
    "reasoning beside the content": (
        {"messages": [ASKED, {**SAID, "reasoning_content": "two and two"}]},
        _row(Q, extra={"reasoning_content": "two and two"}),
    ),
    "thinking of the row": (
        {"question": "2+2?", "thinking": "two and two", "answer": "4"},
        _row(Q, extra={"reasoning_content": "two and two"}),
    ),
    "reasoning of an earlier turn": (
        {"messages": [ASKED, {**SAID, "thinking": "hm"}, ASKED, {**SAID, "thinking": None}]},
        _row(Q, Message("assistant", "4", {"reasoning_content": "hm"}), Q),
    ),
    "openai tool calls": (
        {"messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city": "Brno"}'}}]},
            {"role": "tool", "content": "7", "tool_call_id": "c1", "name": "weather"},
            {"role": "assistant", "content": "It is 7 degrees."}]},
        _row(Message("user", "Weather?"),
             Message("assistant", "", {"tool_calls": [{"id": "c1", **CALL}]}),
             Message("tool", "7", {"name": "weather", "tool_call_id": "c1"}),
             target="It is 7 degrees."),
    ),
    "tool calls without a content key, arguments as an object": (
        {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]}]},
        _row(Q, target="", extra={"tool_calls": [CALL]}),
    ),
    "tool calls as JSON, the function alone": (
        {"messages": [ASKED, {"role": "assistant", "content": "Wait.",
                              "tool_calls": json.dumps([CALL["function"]])}]},
        _row(Q, target="Wait.", extra={"tool_calls": [CALL]}),
    ),
    "openai's older function_call and function": (
        {"messages": [ASKED,
                      {"role": "assistant", "content": None, "function_call": CALL["function"]},
                      {"role": "function", "name": "weather", "content": "7"}, SAID]},
        _row(Q, _calls(), Message("tool", "7", {"name": "weather"})),
    ),
    "sharegpt function_call and observation": (
        {"conversations": [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": '{"t": 7}'}, {"from": "gpt", "value": "4"}]},
        _row(Q, _calls(), Message("tool", '{"t": 7}')),
    ),
    "a call that goes on with an answer is of the same turn": (
        {"conversations": [
            {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "I look."},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "tool_response", "value": "7"}, {"from": "gpt", "value": "4"}]},
        _row(Q, Message("assistant", "I look.", {"tool_calls": [CALL, CALL]}),
             Message("tool", "7")),
    ),
    "a tool's answer that is an object": (
        {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]},
                      {"role": "tool", "content": {"t": 7, "in": "Brüx"}}, SAID]},
        _row(Q, _calls(), Message("tool", '{"t": 7, "in": "Brüx"}')),
    ),
    "a question that a tool's answer ends": (
        {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]},
                      {"role": "tool", "content": ""}]},
        _row(Q, _calls(), Message("tool", ""), target=None),
    ),
    "weight 0 on the answer": ({"messages": [ASKED, {**SAID, "weight": 0}]},
                               _row(Q, extra={"weight": 0})),
    "weights of earlier turns": (
        {"messages": [{**ASKED, "weight": 0}, {**SAID, "weight": 0.0}, ASKED,
                      {**SAID, "weight": 1}]},
        _row(Q, Message("assistant", "4", {"weight": 0}), Q),
    ),
    "axolotl's train, ms-swift's loss": (
        {"messages": [ASKED, {**SAID, "train": False}, ASKED, {**SAID, "loss": False}]},
        _row(Q, Message("assistant", "4", {"weight": 0}), Q, extra={"weight": 0}),
    ),
    "the weight of a row": ({"prompt": "2+2?", "completion": "4", "weight": 0},
                            _row(Q, extra={"weight": 0})),
    "alpaca": ({"instruction": "Add.", "input": "2+2", "output": "4"},
               _row(Message("user", "Add.\n\n2+2"))),
    "alpaca of pandas": ({"instruction": "2+2?", "input": float("nan"), "output": "4",
                          "system": None}, _row(Q)),
    "alpaca with everything": (
        {"instruction": "And times two?", "input": "", "output": "8", "system": "Be brief.",
         "history": [["2+2?", "4"]]},
        _row(Message("system", "Be brief."), Q, A, Message("user", "And times two?"), target="8"),
    ),
    "alpaca whose question is the input": ({"instruction": "", "input": "2+2?", "output": "4"},
                                           _row(Q)),
    "history as JSON": ({"query": "2+2?", "response": "4", "history": '[["2+2?", "4"]]'},
                        _row(Q, A, Q)),
    "history as turns": ({"query": "2+2?", "response": "4", "history": [ASKED, SAID]},
                         _row(Q, A, Q)),
    "query/response": ({"query": "2+2?", "response": "4", "history": []}, _row(Q)),
    "instruction/response": ({"instruction": "2+2?", "response": "4"}, _row(Q)),
    "dolly": ({"instruction": "2+2?", "context": "Sums.", "response": "4"},
              _row(Message("user", "Sums.\n\n2+2?"))),
    "input/output": ({"input": "2+2?", "output": "4"}, _row(Q)),
    "prompt/response": ({"prompt": "2+2?", "response": "4"}, _row(Q)),
    "question/response with a system prompt (OpenOrca)": (
        {"system_prompt": "s", "question": "2+2?", "response": "4"},
        _row(Message("system", "s"), Q),
    ),
    "question/answer": ({"question": "2+2?", "answer": "4"}, _row(Q)),
    "question/answer with a context": ({"question": "2+2?", "answer": "4", "context": "Sums."},
                                       _row(Message("user", "Sums.\n\n2+2?"))),
    "an answer that is a number": ({"question": "2+2?", "answer": 4}, _row(Q)),
    "an answer that is a fraction": ({"question": "2+2?", "answer": -4.25},
                                     _row(Q, target="-4.25")),
    "no answer": ({"question": "2+2?", "answer": ""}, _row(Q, target=None)),
    "prompt/completion": ({"prompt": "2+2?", "completion": "4"}, _row(Q)),
    "prompt text, completion of turns": ({"prompt": "2+2?", "completion": [SAID]}, _row(Q)),
    "prompt text, completion of one turn": ({"prompt": "2+2?", "completion": SAID}, _row(Q)),
    "prompt of turns, completion text": ({"prompt": [ASKED], "completion": "4"}, _row(Q)),
    "prompt and completion of turns, as JSON": (
        {"prompt": json.dumps([ASKED]), "completion": json.dumps([SAID])}, _row(Q)),
    "a completion that calls a tool": (
        {"prompt": [ASKED], "tools": [TOOL],
         "completion": [{"role": "assistant", "tool_calls": [CALL]},
                        {"role": "tool", "content": "7"}, SAID]},
        _row(Q, _calls(), Message("tool", "7"), tools=(TOOL,)),
    ),
    "prompt/completion with a system prompt": (
        {"prompt": "2+2?", "completion": "4", "system": "Be brief."},
        _row(Message("system", "Be brief."), Q),
    ),
    "a prompt that only looks like JSON": ({"prompt": '[1, 2] has how many "role"s?',
                                            "completion": "4"},
                                           _row(Message("user", '[1, 2] has how many "role"s?'))),
    "text": ({"text": "Once upon a time"}, _row(target="Once upon a time")),
    "characters are kept": ({"prompt": "a\tb\f\x1b[1m\u200b\u2028é", "completion": " 4\n"},
                            _row(Message("user", "a\tb\f\x1b[1m\u200b\u2028é"), target=" 4\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_to_the_letter(name: str) -> None:
    row, wanted = FORMS[name]
    found = conversation(row, "f.jsonl:1")
    for part in ("messages", "target", "extra", "tools"):
        assert getattr(found, part) == getattr(wanted, part), part
    assert found.used == row.keys(), "every column of these rows says something"
    assert not found.ignored
    assert found.plain == (not wanted.messages)


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("user human prompter User HUMAN", "user"),
        ("assistant gpt chatgpt bard bing claude model bot chatbot AI llm", "assistant"),
        ("system System", "system"),
        ("developer", "developer"),
        ("tool function observation ipython environment tool_response tool-result", "tool"),
    ],
)
def test_roles_by_every_common_name(names: str, role: str) -> None:
    for name in names.split():
        turns = [ASKED, SAID, {"from": name, "value": "x"}, ASKED]
        if role == "assistant":
            turns.pop(1)
        found = conversation({"conversations": turns}, "f:1").messages
        assert found[len(turns) - 2] == Message(role, "x"), name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["function_call", "tool_call", "function-calls", "Tool Call"])
def test_calls_by_every_common_role(name: str) -> None:
    for value in (CALL, [CALL], json.dumps(CALL["function"]), json.dumps([CALL["function"]])):
        row = {"conversations": [ASKED, {"from": name, "value": value}]}
        assert conversation(row, "f:1").extra == {"tool_calls": [CALL]}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("answer", ["output", "completion", "response", "answer"])
def test_any_question_goes_with_any_answer(question: str, answer: str) -> None:
    found = conversation({question: "2+2?", answer: "4"}, "f:1")
    assert (found.messages, found.target, found.used) == ((Q,), "4", {question, answer})


@pytest.mark.parametrize(
    ("row", "ignored"),
    [
        ({"messages": [ASKED, SAID], "prompt": "2+2?", "source": "s", "score": 3},
         {"prompt", "source", "score"}),
        ({"messages": [{**ASKED, "mood": "gay"}, {**SAID, "tokens": 3, "images": None}]},
         {"messages[].mood", "messages[].tokens"}),
        ({"instruction": "2+2?", "input": "", "output": "4", "text": "### 2+2?\n4"}, {"text"}),
        ({"question": "2+2?", "answer": "4", "response": "five"}, {"response"}),
        ({"prompt": "2+2?", "completion": "4", "question": "?", "answer": "five"},
         {"question", "answer"}),
        ({"prompt": [ASKED], "completion": "4", "context": "c"}, {"context"}),
        ({"text": "Once", "url": "u", "note": None, "part": float("nan")}, {"url"}),
        ({"prompt": "2+2?", "completion": "4", "rejected": "5"}, {"rejected"}),
        ({"question": "2+2?", "reasoning": "hm", "images": []}, {"reasoning"}),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(row: dict[str, Any], ignored: set[str]) -> None:
    found = conversation(row, "f:1")
    assert found.ignored == ignored
    assert not found.used & ignored
    assert row.keys() - found.used - ignored <= {"note", "part", "images"}, "those say nothing"


@pytest.mark.parametrize(
    ("named", "messages", "target"),
    [
        ((), (Message("user", "q"),), "a"),
        (("prompt", "completion"), (Q,), "4"),
        (("question", "completion"), (Message("user", "?"),), "4"),
        (("text",), (), "t"),
    ],
)
def test_the_columns_that_a_study_names_decide(
    named: tuple[str, ...], messages: tuple[Message, ...], target: str
) -> None:
    row = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "prompt": "2+2?", "completion": "4", "question": "?", "answer": "5", "text": "t",
    }  # fmt: skip
    found = conversation(row, "f:1", named)
    assert (found.messages, found.target) == (messages, target)


@pytest.mark.parametrize(
    ("row", "learned"),
    [
        ({"messages": [ASKED, SAID]}, True),
        ({"messages": [ASKED, {**SAID, "weight": 0}]}, False),
        ({"messages": [ASKED, SAID, ASKED, {**SAID, "weight": 0}]}, True),
        ({"messages": [ASKED, {**SAID, "weight": 0}, ASKED, SAID]}, True),
        ({"question": "2+2?"}, False),
        ({"text": "Once"}, True),
    ],
)
def test_whether_there_is_something_to_learn(row: dict[str, Any], learned: bool) -> None:
    assert conversation(row, "f:1").learned is learned


def test_the_question_is_the_users_last_turn() -> None:
    row = {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]},
                        {"role": "tool", "content": "7"}]}  # fmt: skip
    assert conversation(row, "f:1").question == "2+2?"
    assert conversation({"text": "Once"}, "f:1").question == ""

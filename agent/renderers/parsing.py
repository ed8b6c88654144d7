"""What a model of any family wrote: thoughts, tool calls, an answer. The form is the one that the prompts ask for.

    <think>...</think>
    <tool_call>
    {"name": "search_clips", "arguments": {"query": "red star"}}
    </tool_call>                                      or      <answer>red</answer>  <evidence>750.0-762.0</evidence>
                                                              and, to cite places on the screen (thousandths of the frame),
                                                              <box>753.0: 170,370,630,830</box>
"""

from __future__ import annotations

import json
import re

from ...core.nouns import ToolCall
from ...core.policy import Parsed

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.S)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.S)
_EVIDENCE = re.compile(r"<evidence>(.*?)</evidence>", re.S)
_BOX = re.compile(r"<box>(.*?)</box>", re.S)
_CALL_FORM = '<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'


def parse(text: str, turn_index: int) -> Parsed:
    """What a completion says. Calls and answers inside a thought do not count.

    The opening `<think>` may be missing (some templates write it themselves); a thought that never ends is an error.
    """
    thought, said = _split_thought(text)
    if said is None:
        return Parsed(thought=thought, error="the thought has no </think>.")
    bodies = _CALL.findall(said)
    calls: list[ToolCall] = []
    for i, body in enumerate(bodies):
        call = _read_call(body, f"call_{turn_index}_{i}")
        if isinstance(call, str):
            return Parsed(thought=thought, error=call)
        calls.append(call)
    answer, evidence, boxes = _ANSWER.search(said), _EVIDENCE.search(said), _BOX.search(said)
    error = None
    if said.count("<tool_call>") != len(bodies):
        error = f"a <tool_call> has no </tool_call>. The form is {_CALL_FORM}."
    elif answer is None and "<answer>" in said:
        error = "the <answer> has no </answer>."
    elif answer is None and not calls:
        error = "there is neither a tool call nor an answer."
    elif answer is not None and not answer[1].strip():
        error = "the <answer> is empty."
    return Parsed(
        thought=thought,
        tool_calls=tuple(calls) if error is None else (),
        answer=answer[1].strip() if answer and error is None else None,
        evidence=evidence[1].strip() if evidence and error is None else None,
        boxes=boxes[1].strip() if boxes and error is None else None,
        error=error,
    )


def _split_thought(text: str) -> tuple[str, str | None]:
    """(thought, what follows it); the second is None when the thought is not closed."""
    head, closed, rest = text.partition("</think>")
    if closed:
        return head.replace("<think>", "", 1).strip(), rest
    if "<think>" in text:
        return text.partition("<think>")[2].strip(), None
    return "", text


def _read_call(body: str, call_id: str) -> ToolCall | str:
    """The call, or what was wrong with it."""
    try:
        data = json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        return f"the tool call is not JSON ({one_line(error)}). The form is {_CALL_FORM}."
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return f"the tool call has no name. The form is {_CALL_FORM}."
    arguments = data.get("arguments", {})
    # Some models write the arguments as a string of JSON: the tool's door reads either.
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=call_id, name=data["name"], arguments_json=raw)


def one_line(error: BaseException) -> str:
    """The first line of what an error says, for a message to users or models."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

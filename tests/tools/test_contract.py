"""The contract every tool keeps, and how a function becomes a tool."""

import asyncio
import json
import time
from typing import Any

import pytest
from playhead.core.nouns import ToolCall
from playhead.tools.contract import Tool, ToolContext, ToolResult
from playhead.tools.toolbox import FUNCTIONS, default_toolbox

TOOLS = default_toolbox().tools


def nap(ctx: ToolContext, seconds: float) -> ToolResult:
    """Sleep.

    Args:
        seconds: how long.
    """
    time.sleep(seconds)
    return ToolResult(content=("slept\n",))


@pytest.mark.parametrize("tool", TOOLS, ids=[t.spec.name for t in TOOLS])
class TestToolContract:
    def test_the_schema_is_plain_and_complete(self, tool: Tool):
        schema: Any = tool.spec.parameters
        assert json.loads(json.dumps(schema)) == schema
        assert schema["type"] == "object" and set(schema["required"]) <= set(schema["properties"])
        for field in schema["properties"].values():
            assert field["description"] and field["type"] in ("string", "number", "integer", "array")
        assert tool.spec.name == tool.spec.name.lower() and tool.spec.description.endswith(".")
        assert "\n" not in tool.spec.description and "$ref" not in json.dumps(schema)

    @pytest.mark.parametrize("raw", ["", "null", "3", '"text"', "[]", "{}", '{"x": 1}', '{"query": null}', "{" * 500])
    def test_nonsense_is_an_observation(self, tool: Tool, ctx: ToolContext, raw: str):
        seen = asyncio.run(tool.run(ToolCall(id="7", name=tool.spec.name, arguments_json=raw), ctx))
        assert seen.tool_call_id == "7" and seen.error and f"{tool.spec.name} takes " in seen.error


def test_the_spec_of_a_search():
    spec = next(t.spec for t in TOOLS if t.spec.name == "search_clips")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 400,
                "description": 'what to look for; several descriptions may be separated by ";".',
            },
            "k": {
                "type": "integer",
                "default": 3,
                "minimum": 1,
                "maximum": 16,
                "description": "how many moments for each description.",
            },
        },
        "required": ["query"],
    }


def test_a_slow_tool_is_stopped_and_others_go_on(ctx: ToolContext):
    tool = Tool(nap, time_limit_s=0.2)
    quick = ToolCall(id="q", name="nap", arguments_json='{"seconds": 0}')
    slow = ToolCall(id="s", name="nap", arguments_json='{"seconds": 3600}')

    async def both() -> Any:
        return await asyncio.gather(tool.run(slow, ctx), tool.run(quick, ctx))

    late, done = asyncio.run(both())
    assert late.error == "nap took longer than 0.2 s; ask for less at once." and 0.1 < late.wall_s < 0.9
    assert done.content == ("slept\n",)


def test_a_function_without_words_is_no_tool():
    def silent(ctx: ToolContext, a: int) -> ToolResult:
        return ToolResult(content=())

    def half(ctx: ToolContext, a: int) -> ToolResult:
        """Does it."""
        return ToolResult(content=())

    with pytest.raises(TypeError, match="docstring"):
        Tool(silent)
    with pytest.raises(TypeError, match="argument a needs"):
        Tool(half)


def test_the_functions_are_the_tools():
    assert list(FUNCTIONS) == [tool.spec.name for tool in TOOLS]

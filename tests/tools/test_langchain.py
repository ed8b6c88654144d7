"""The tools inside somebody else's LangGraph agent: an ordinary `ToolNode` runs them."""

import asyncio
import base64
import io
from typing import Annotated, Any, TypedDict

import numpy as np
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from PIL import Image
from playhead.tools.contract import ToolContext
from playhead.tools.toolbox import default_toolbox


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def graph(ctx: ToolContext) -> Any:
    tools = [tool.as_langchain(ctx) for tool in default_toolbox().tools]
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    return builder.compile()


def asked(*calls: tuple[str, dict[str, Any]]) -> State:
    made = [{"name": name, "args": args, "id": f"c{i}", "type": "tool_call"} for i, (name, args) in enumerate(calls)]
    return {"messages": [AIMessage(content="", tool_calls=made)]}


def answers(state: Any) -> list[ToolMessage]:
    return [m for m in state["messages"] if isinstance(m, ToolMessage)]


def test_async_with_text_images_and_artifact(ctx: ToolContext):
    state = asked(("search_clips", {"query": "red", "k": 1}), ("temporal_zoom", {"start_s": 60, "end_s": 62}))
    search, zoom = answers(asyncio.run(graph(ctx).ainvoke(state)))
    assert (search.tool_call_id, zoom.tool_call_id) == ("c0", "c1")
    blocks: Any = zoom.content
    assert [b["type"] for b in blocks] == ["text", "text", "image", "text", "image"]
    assert blocks[1]["text"] == "<60.0 seconds>"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(blocks[2]["base64"]))))
    assert np.array_equal(image, ctx.store.pixels(zoom.artifact.frames[0]))
    assert search.artifact.error is None and len(search.artifact.clips) == 1


def test_sync_and_a_fault_reads_the_same(ctx: ToolContext):
    (message,) = answers(graph(ctx).invoke(asked(("temporal_zoom", {"start_s": 500, "end_s": "x"}))))
    assert "end_s should be a valid number" in str(message.content)
    (message,) = answers(graph(ctx).invoke(asked(("temporal_zoom", {"start_s": 500, "end_s": 501}))))
    assert "outside the video (0.0 to 101.0)" in str(message.content)


def test_models_are_told_the_same_schema(ctx: ToolContext):
    from langchain_core.utils.function_calling import convert_to_openai_tool

    for tool in default_toolbox().tools:
        told = convert_to_openai_tool(tool.as_langchain(ctx))["function"]
        assert told["name"] == tool.spec.name and told["description"] == tool.spec.description
        assert told["parameters"]["properties"].keys() == tool.spec.parameters["properties"].keys()  # type: ignore[union-attr]

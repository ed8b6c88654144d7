"""Test-time scaling: strategies that spend more compute on one question, under one hard budget. See docs/scaling.md.

from playhead.agent.scaling.spec import parse_strategy
scaled = await parse_strategy("vote(tools,n=8)").run(agent, task, Budget(frames=64), seed=0)
"""

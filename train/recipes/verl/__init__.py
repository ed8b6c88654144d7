"""A recipe for clusters: verl's trainer, with our agent and tools as its agent loop. See `agent_loop.py`, `export.py` and
docs/rl.md.

verl is not a dependency, and this was not run with it: the loop is tested against stand-ins of the classes that verl
documents (`verl.experimental.agent_loop.agent_loop`: AgentLoopBase, AgentLoopOutput, AgentLoopMetrics, a server
manager with `generate`).
"""

"""A recipe for clusters: verl's trainer, with our agent and tools as its agent loop. See `agent_loop.py`, `export.py` and
docs/rl.md.

verl is not a dependency. One set of tests holds the loop to verl 0.9.1's own workers, where that is installed, and to a
stand-in of them (`tests/helpers/verl_bench.py`); nothing was trained with it.
"""

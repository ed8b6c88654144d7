"""mcts: Monte-Carlo tree search over tool calls (the variant of zoom that searches in what the agent does).

A node is an episode up to a turn; its children are the turns that were sampled there, told apart by their calls. Each
simulation walks down by UCB1 (Kocsis and Szepesvari 2006), adds a branch where a node has few for its visits (progressive
widening, Coulom 2007), plays it to the end with the agent itself, and hands its value up: how sure the policy was, 0 for
no answer. All simulations vote by their values; it stops when the rest cannot change the result. A branch shares its
beginning with the others in the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ...core.trajectory import Trajectory
from ..confidence import thought_confidence
from .bench import Bench, Spent, seed_of
from .branch import after
from .passes import Tools, said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import tally


@dataclass(slots=True)
class _Node:
    """A place where the policy is about to speak turn `turn`, as it was in `run`; `run` is None at the root."""

    run: Trajectory | None = None
    turn: int = 0
    final: bool = False
    visits: int = 0
    tried: int = 1
    """How often the policy spoke here: once when the node was made."""
    value: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mcts(Strategy):
    n: int = 8
    """Simulations at most."""
    temperature: float = 0.8
    explore: float = 0.5
    """UCB1's constant."""

    name = "mcts"
    help = "Monte-Carlo tree search over tool calls"

    def __post_init__(self) -> None:
        check(self, n=(1, 1024), temperature=(0, 2), explore=(0, 100))

    @property
    def uses_tools(self) -> bool:
        return True

    @property
    def runs(self) -> float:
        return self.n

    def least(self, bench: Bench) -> Least:
        return Tools().least(bench)

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        root, runs, why = _Node(tried=0), list[Outcome](), "all simulated"
        warm = bench.varied(temperature=self.temperature)
        for i in range(self.n):
            if runs and not purse.affords(self.least(bench)):
                why = "budget"
                break
            path = self._select(root)
            node = path[-1]
            with purse.part(self.n - i, self.least(bench)) as part:
                try:
                    where = bench if i == 0 else warm  # the first is the plain run
                    start = None if node.run is None else after(node.run, node.turn)
                    run = await where.episode(part, seed_of(seed, i), start=start)
                except Spent as spent:
                    if not runs:
                        raise
                    return replace(self._best(bench, runs), why="budget", stop=spent.reason)
            value = self._value(bench, run)
            self._grow(path, run, value)
            runs.append(bench.outcome(run))
            bench.note(self.name, f"from turn {node.turn}: {said(run.answer)}, value {value:.2f}")
            if self._decided(bench, runs, self.n - i - 1):
                why = "decided"
                break
        return replace(self._best(bench, runs), why=why)

    def _select(self, root: _Node) -> list[_Node]:
        """The path to where the next branch begins."""
        path = [root]
        while True:
            node = path[-1]
            open_ = [c for c in node.children.values() if not c.final]
            if node.tried <= math.sqrt(node.visits) - 1 or not open_:
                return path
            path.append(max(open_, key=lambda c: self._ucb(node, c)))

    def _ucb(self, node: _Node, child: _Node) -> float:
        return child.value / child.visits + self.explore * math.sqrt(math.log(node.visits) / child.visits)

    def _grow(self, path: list[_Node], run: Trajectory, value: float) -> None:
        """Add the turns that `run` played from the end of `path`, and hand its value up."""
        node = path[-1]
        node.tried += 1
        for turn in run.turns[node.turn :]:
            key = "|".join(f"{c.name} {c.arguments_json}" for c in turn.tool_calls) or "answer"
            last = turn.index + 1 >= len(run.turns)
            child = node.children.setdefault(
                key, _Node(run=run, turn=turn.index + 1, final=last or not turn.tool_calls)
            )
            path.append(child)
            node = child
            if child.final:
                break
        for visited in path:
            visited.visits += 1
            visited.value += value

    def _value(self, bench: Bench, run: Trajectory) -> float:
        known = run.answer is not None and (run.answer.choice is not None or not bench.task.choices)
        sure = thought_confidence(run)
        return (0.5 if sure is None else sure) if known else 0.0

    def _decided(self, bench: Bench, runs: list[Outcome], left: int) -> bool:
        groups = self._groups(bench, runs)
        second = groups[1].weight if len(groups) > 1 else 0.0
        return bool(groups) and groups[0].valid and groups[0].weight - second > left

    def _groups(self, bench: Bench, runs: list[Outcome]):
        values = [self._value(bench, o.trajectory) if o.trajectory else 0.0 for o in runs]
        return tally([o.answer for o in runs], values, bench.task.choices)

    def _best(self, bench: Bench, runs: list[Outcome]) -> Outcome:
        best = self._groups(bench, runs)[0]
        return replace(runs[best.speaker], answer=best.answer)

"""Spec: strategies by name, and the small strict grammar in which the command line names them. Nothing is evaluated.

    tools                       a name
    vote:n=8,temperature=0.5    a name, and parameters up to the end
    vote(tools,n=8)             a name, then strategies inside and parameters in brackets
    refine(widen(frames=4))     brackets within brackets

An unknown name or parameter is one line that lists what is allowed.
"""

from __future__ import annotations

import re
import typing
from dataclasses import fields
from typing import Any, Literal

from .best_of import BestOf
from .early_exit import EarlyExit, Glance
from .force import Force
from .iterate import Iterate
from .map_reduce import MapReduce
from .mcts import Mcts
from .passes import Direct, Think, Tools
from .refine import Refine
from .strategy import Strategy, StrategyError
from .vote import Vote
from .widen import Widen
from .zoom import Zoom

STRATEGIES: dict[str, type[Strategy]] = {
    s.name: s
    for s in (
        *(Direct, Glance, Think, Tools, Vote, BestOf, Widen, Zoom, Mcts, Refine, Iterate, MapReduce, Force, EarlyExit),
    )
}
"""All of them, by the name that users write."""

_NAME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)\s*")
_VALUE = re.compile(r"\s*([^,()=\s]+)\s*")
MOST_DEPTH = 8


def parse_strategy(text: str) -> Strategy:
    """The strategy that `text` names.

    Raises:
        StrategyError: what cannot be read and where, or an unknown name or parameter with those there are.
    """
    reader = _Reader(text)
    strategy = reader.strategy(0)
    if reader.at < len(text):
        raise StrategyError(f"strategy {text!r}: cannot be read from {text[reader.at :]!r} on")
    return strategy


def parse_strategies(text: str) -> list[Strategy]:
    """Several, separated by spaces, semicolons, or commas outside brackets; `vote:n=8,temperature=0.5` stays one."""
    items: list[str] = []
    for item in _split(text):
        if items and re.match(r"\s*[A-Za-z_]+\s*=", item) and ":" in items[-1]:
            items[-1] += f",{item}"
        else:
            items.append(item)
    if not items:
        raise StrategyError(f"no strategy is named; there are {', '.join(STRATEGIES)}")
    return [parse_strategy(item) for item in items]


def _split(text: str) -> list[str]:
    pieces, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth <= 0 and character in ",; \t\n":
            pieces.append("")
        else:
            pieces[-1] += character
    return [p for p in pieces if p.strip()]


def parameters(kind: type[Strategy]) -> dict[str, Any]:
    """Parameter -> type, of those that a spec may set."""
    hints = typing.get_type_hints(kind)
    allowed = {f.name: hints[f.name] for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    return {n: t for n, t in allowed.items() if t in (int, float, bool, str) or typing.get_origin(t) is Literal}


class _Reader:
    """Reads a spec from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def strategy(self, depth: int) -> Strategy:
        found = _NAME.match(self.text, self.at)
        if found is None or depth > MOST_DEPTH:
            raise self._wrong("a strategy's name is expected" if found is None else "brackets go too deep")
        self.at = found.end()
        kind = STRATEGIES.get(found[1])
        if kind is None:
            raise StrategyError(f"no strategy is called {found[1]!r}; there are {', '.join(STRATEGIES)}")
        values: dict[str, Any] = {}
        if self._take("("):
            if not self._take(")"):
                self._items(kind, values, depth, inside=True)
                if not self._take(")"):
                    raise self._wrong("a closing bracket is expected")
        elif depth == 0 and self._take(":"):
            self._items(kind, values, depth, inside=False)
        return kind(**values)

    def _items(self, kind: type[Strategy], values: dict[str, Any], depth: int, *, inside: bool) -> None:
        while True:
            found = _NAME.match(self.text, self.at)
            if found is not None and self.text[found.end() : found.end() + 1] == "=":
                self.at = found.end() + 1
                self._parameter(kind, values, found[1])
            elif inside:
                self._inner(kind, values, self.strategy(depth + 1))
            else:
                raise self._wrong("NAME=VALUE is expected")
            if not self._take(","):
                return

    def _parameter(self, kind: type[Strategy], values: dict[str, Any], name: str) -> None:
        allowed = parameters(kind)
        if name not in allowed:
            raise StrategyError(f"{kind.name} has no parameter {name!r}; it has {', '.join(allowed) or 'none'}")
        if name in values:
            raise StrategyError(f"{kind.name}: {name} is given twice")
        found = _VALUE.match(self.text, self.at)
        if found is None:
            raise self._wrong(f"a value for {name} is expected")
        self.at = found.end()
        values[name] = _value(kind, name, allowed[name], found[1])

    def _inner(self, kind: type[Strategy], values: dict[str, Any], strategy: Strategy) -> None:
        hints = typing.get_type_hints(kind)
        slots = [f.name for f in fields(kind) if hints[f.name] is Strategy]  # pyright: ignore[reportArgumentType]
        free = [s for s in slots if s not in values]
        if not free:
            room = f"only {len(slots)}" if slots else "no"
            raise StrategyError(f"{kind.name} takes {room} strategy inside; {strategy.name} is too many")
        values[free[0]] = strategy

    def _take(self, mark: str) -> bool:
        space = len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
        if self.text[self.at + space : self.at + space + 1] != mark:
            return False
        self.at += space + 1
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return True

    def _wrong(self, what: str) -> StrategyError:
        return StrategyError(f"strategy {self.text!r}: {what} at {self.text[self.at :] or 'its end'!r}")


def _value(kind: type[Strategy], name: str, hint: Any, text: str) -> Any:
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        if text not in options:
            raise StrategyError(f"{kind.name}: {name} is one of {', '.join(options)}; got {text!r}")
        return text
    if hint is bool:
        if text not in ("yes", "no", "true", "false", "True", "False"):
            raise StrategyError(f"{kind.name}: {name} is yes or no; got {text!r}")
        return text.lower() in ("yes", "true")
    try:
        return hint(text)
    except ValueError:
        raise StrategyError(f"{kind.name}: {name} must be a number; got {text!r}") from None

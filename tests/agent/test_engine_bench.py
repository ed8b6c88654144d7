"""`benchmarks.engine` in small: every part runs, and what it counts is right. What it times is not looked at."""

from __future__ import annotations

import itertools
import json
import sys

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bench():
    from playhead.benchmarks.engine import Bench

    return Bench("tiny", "cpu", 300, 4)


@pytest.fixture
def part(bench):
    from playhead.benchmarks.engine import PARTS

    def part(name: str, **how):
        with torch.no_grad():
            return PARTS[name](bench, **how)

    return part


def test_a_prefix_is_as_long_as_was_asked_for(bench):
    assert abs(len(bench.opening(0).token_ids) - 300) <= 32


def test_five_turns_say_what_generating_from_scratch_says(part):
    assert part("a")["turns with the same tokens"] == 5


def test_a_second_question_encodes_no_frame_again(part, bench):
    told = part("d")
    assert told["frames encoded by the first"] == bench.frames and told["by the second"] == 0
    assert 0 < told["tokens prefilled by the second"] < 64


def test_contexts_grow_from_turn_to_turn(part):
    told = part("e", turns=4)
    sizes = told["context tokens"]
    assert len(told["seconds"]) == 4 and len({b - a for a, b in itertools.pairwise(sizes)}) == 1


@pytest.mark.parametrize("name", ["b", "c", "f", "g"])
def test_parts_that_only_time_run(part, name):
    told = part(name, **({"agents": 3, "turns": 2, "videos": (1, 3)} if name == "c" else {}))
    assert len(told) >= 3 and json.dumps(told, default=float)


def test_the_command_prints_a_part(monkeypatch, capsys):
    from playhead.benchmarks.engine import main

    monkeypatch.setattr(sys, "argv", ["engine", "--shape", "tiny", "--prefix", "300", "--sampled", "4", "--only", "d"])
    main()
    head, rest = capsys.readouterr().out.split("\n", 1)
    assert json.loads(head)["device"] == "cpu" and json.loads(rest.removeprefix("d "))["by the second"] == 0

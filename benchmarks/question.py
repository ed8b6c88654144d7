"""What one question costs on a fresh film: filming, indexing, asking; wall time, CPU time and peak memory of each.

    python -m playhead.benchmarks.question                 # a 20-minute film
    python -m playhead.benchmarks.question --minutes 60    # an hour

Each step is a process of its own, started as a user would start it, so model loading is counted. The question is asked
twice: with nothing in memory, and (inside one process) a second time about the same film.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AGAIN = """
import sys, time
from playhead import VideoAgent
agent = VideoAgent("embedded")
for question in sys.argv[2:]:
    began = time.perf_counter()
    result = agent.ask(sys.argv[1], question)
    print(f"{time.perf_counter() - began:.2f} s  {result.answer.text}  <- {question}")
"""


def step(name: str, command: list[str], home: Path) -> str:
    """Run a command, print what it took; returns its output."""
    env = {**os.environ, "PLAYHEAD_HOME": str(home)}
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name}: exit code {process.returncode}")
    wall, cpu, peak = time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(f"{name:28s} {wall:7.1f} s wall {cpu:7.1f} s CPU {peak:7.0f} MB peak", flush=True)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=5_000_001)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, world = Path(folder) / "home", Path(folder) / "world"
        make = ["world", "make", "--out", str(world), "--videos", "1"]
        step("film", ["-m", "playhead", *make, "--minutes", str(args.minutes), "--seed", str(args.seed)], home)
        tasks = [json.loads(line) for line in (world / "tasks.jsonl").read_text().splitlines()]
        video = str(world / tasks[0]["video"])
        step("index", ["-m", "playhead", "index", video], home)
        for task in tasks:
            options = ["--choices", ",".join(task["choices"])] if task["choices"] else []
            said = step(
                f"ask ({task['kind']})", ["-m", "playhead", "ask", video, task["question"], *options, "--json"], home
            )
            print(f"    answer {json.loads(said)['answer']!r}, truth {task['answer']!r}")
        print(step("ask all in one process", ["-c", AGAIN, video, *(t["question"] for t in tasks)], home))


if __name__ == "__main__":
    main()

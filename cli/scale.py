"""`playhead scale`: strategies under budgets on one set of tasks, with what each costs; a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Adapter,
    Attention,
    CacheGb,
    DeviceMap,
    Dtype,
    FourBit,
    Model,
    UsageProblem,
    aside,
    console,
    parse_limits,
    parse_load,
    progress_bar,
    quiet_loading,
    say,
    tell,
)

if TYPE_CHECKING:
    from ..evals.bill import Bill
    from ..evals.cost import Cost
    from ..evals.results import TaskResult


def scale(
    data: Annotated[Path, typer.Option(help="A folder that `playhead world make` wrote, or a tasks.jsonl.")],
    out: Annotated[Path, typer.Option(help="The grid's folder; the same command goes on with a grid that stopped.")],
    strategies: Annotated[
        str, typer.Option(help="tools,direct,vote:n=8,refine(vote(tools,n=4)),...; see docs/scaling.md.")
    ],
    model: Model = "embedded",
    budgets: Annotated[
        str | None,
        typer.Option(
            help="Hard limits per question, several budgets: frames=16,frames=64 or 'frames=64,seconds=20 calls=8'."
        ),
    ] = None,
    cost: Annotated[
        str, typer.Option(help="What the picture draws: tokens (computed), frames, sampled, prefilled, calls, seconds.")
    ] = "tokens,frames",
    limit: Annotated[int | None, typer.Option(help="Only so many tasks, taken from every kind in turn.", min=1)] = None,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own and whole videos.")] = 1,
    concurrency: Annotated[int, typer.Option(help="Runs of one question under way at once.", min=1)] = 8,
    picture: Annotated[Path | None, typer.Option(help="Also draw it here: .png, .svg or .pdf.")] = None,
    encoder: Annotated[str, typer.Option(help="embedded, or MODEL_NAME:/path/to/weights of OpenCLIP.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Drives sampling.")] = 0,
    temperature: Annotated[
        float, typer.Option(help="Of plain runs; a strategy that samples has its own.", min=0.0)
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json on stdout instead of the table.")] = False,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
    cache_gb: CacheGb = None,
) -> None:
    """What does a point of accuracy cost? Run strategies under budgets on the same tasks, and write the bill.

    Prints a table and writes OUT/results.json, OUT/scaling.png (accuracy against cost, the Pareto front drawn),
    OUT/calibration.png and OUT/scaling.html; every cell of the grid has a folder with its results and, of each question, the
    trajectory that the answer was taken from. It can be killed at any moment: the same command goes on, and ends in the same
    results.json. Strategies and budgets can be added later.

    "tokens" are those that the model really computed, prompt and sampled ones, when every question starts with empty caches.

    Examples:

        playhead scale --data world --strategies tools,direct,vote:n=8 --budgets frames=16,frames=64 --out runs/scale
        playhead scale --data world --strategies "tools early-exit(tools,vote)" --cost tokens,seconds --out runs/exit
        playhead scale --data world --strategies tools,vote --limit 14 --workers 2 --out runs/try --picture try.svg
    """
    from ..agent.scaling.spec import parse_strategies
    from ..evals.grid import cells_of, run_grid
    from ..evals.manifest import Setup

    costs = parse_costs(cost)
    base = Setup(
        model=model,
        encoder=encoder,
        seed=seed,
        temperature=temperature,
        concurrency=concurrency,
        load=parse_load(
            model,
            dtype=dtype,
            device_map=device_map,
            attention=attention,
            four_bit=four_bit,
            adapter=adapter,
            cache_gb=cache_gb,
        ),
    )
    cells = cells_of(base, parse_strategies(strategies), parse_budgets(budgets))
    _check_picture(picture)
    quiet_loading(model)
    with progress_bar(aside(), count=True) as bar:
        row = bar.add_task("asking", total=None, visible=False)

        def note(key: str, result: TaskResult, done: int, total: int) -> None:
            bar.update(row, completed=done, total=total, visible=True, description=key)

        bill, results = run_grid(data, out, cells, limit=limit, workers=workers, on_result=note)
    written = _draw(bill, costs, results, out, picture, f"{model}: accuracy against cost")
    if as_json:
        typer.echo((out / "results.json").read_text(encoding="utf-8"), nl=False)
    else:
        _say_bill(bill, costs, [out / "results.json", *written])


def parse_budgets(text: str | None) -> list[dict[str, Any]]:
    """`frames=16,frames=64` as two sets of limits: a name that comes again begins the next budget, and so does a space or `;`.

    Raises:
        UsageProblem: an unknown name or a value that is no number.
    """
    budgets: list[dict[str, Any]] = []
    for group in (text or "").replace(";", " ").split():
        budgets.append({})
        for part in filter(None, group.split(",")):
            limits = parse_limits(part, option="--budgets")
            if limits.keys() & budgets[-1].keys():
                budgets.append({})
            budgets[-1] |= limits
    return budgets


def parse_costs(text: str) -> list[Cost]:
    """Raises: UsageProblem: an unknown currency."""
    from ..evals.cost import Cost

    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [c.value for c in Cost]
    for name in names:
        if name not in known:
            raise UsageProblem(f"--cost {name!r}: take one or more of {', '.join(known)}")
    if not names:
        raise UsageProblem(f"--cost is empty: take one or more of {', '.join(known)}")
    return [Cost(name) for name in dict.fromkeys(names)]


def _check_picture(picture: Path | None) -> None:
    """Before hours of work rather than after them."""
    from ..evals.picture import SUFFIXES, can_draw

    if picture is not None and picture.suffix not in SUFFIXES:
        raise UsageProblem(f"--picture {picture}: the name must end in {', '.join(SUFFIXES)}")
    if picture is not None and not can_draw():
        raise UsageProblem("--picture needs matplotlib: pip install 'playhead[plots]'")


def _draw(
    bill: Bill,
    costs: Sequence[Cost],
    results: dict[str, list[TaskResult]],
    out: Path,
    picture: Path | None,
    title: str,
) -> list[Path]:
    """The pictures and the page; what was written."""
    from ..evals.calibration import calibrate
    from ..evals.picture import can_draw, draw_bill, draw_reliability
    from ..evals.statement import page, write_page

    drawn: list[Path] = []
    if can_draw():
        drawn = [out / "scaling.png", out / "calibration.png"]
        draw_bill(bill, costs, drawn[0], title)
        known = {c: calibrate((r.confidence, r.right) for r in results[c]) for c in bill.at_their_best}
        draw_reliability(known, drawn[1])
        if picture is not None:
            draw_bill(bill, costs, picture, title)
    else:
        tell("playhead: no picture: it needs matplotlib (pip install 'playhead[plots]'); then run the same command again")
    write_page(out / "scaling.html", page(bill, costs, drawn, title))
    return [*drawn, *([picture] if picture and drawn else []), out / "scaling.html"]


def _say_bill(bill: Bill, costs: Sequence[Cost], written: Sequence[Path]) -> None:
    from ..evals.statement import bill_table, pair_lines, verdict

    console().print(bill_table(bill))
    for line in (*pair_lines(bill), *verdict(bill, costs)):
        say(line)
    say(f"written: {', '.join(map(str, written))}", style="dim")

"""`playhead data`: look at sets of trajectories, check them, and carry them to and from other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import UsageProblem, console, quiet_loading, say, tell

if TYPE_CHECKING:
    from rich.table import Table

    from ..agent.renderers.chat import ChatRenderer
    from ..core.errors import PlayheadError
    from ..train.data.filters import Drop

Set = Annotated[Path, typer.Argument(help="A folder of `playhead collect`, or a trajectories.jsonl.", metavar="SET")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out and count them; else the first one ends it.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="embedded, or a checkpoint's folder or hub id, of a family that playhead knows.")
]


def stats(
    source: Set, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, skip_bad: SkipBad = False
) -> None:
    """What is in a set: counts, kinds, lengths, tools, costs, rewards, sources and their licences.

    Examples:

        playhead data stats sets/round1
        playhead data stats runs/tools/trajectories.jsonl --json
    """
    from ..core.codec import to_plain
    from ..train.data.card import CardMaker
    from ..train.data.sets import TrajectorySet

    maker, bad = CardMaker(), _Skipped(skip_bad)
    for trajectory in TrajectorySet(source).read(bad.note):
        maker.add(trajectory)
    card = maker.card()
    bad.say_how_many()
    if as_json:
        print(json.dumps(to_plain(card), indent=2))
        return
    from rich.markdown import Markdown

    console().print(Markdown(card.markdown()))


def view(
    source: Set,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("page.html"),
    limit: Annotated[int, typer.Option(help="At most so many trajectories.", min=1)] = 50,
    skip_bad: SkipBad = False,
) -> None:
    """A set as one HTML page: timelines, frames, thoughts, answers (as `playhead view`).

    Examples:

        playhead data view sets/round1 --limit 20 --out page.html
    """
    from itertools import islice

    from ..demo.run import write_page
    from ..train.data.sets import TrajectorySet

    bad, chosen = _Skipped(skip_bad), TrajectorySet(source)
    shown = list(islice(chosen.read(bad.note), limit))
    path = write_page(shown, out, chosen.folder)
    bad.say_how_many()
    say(f"{path}: {len(shown)} trajectories, {path.stat().st_size / 1e6:.1f} MB")


def validate(
    source: Set,
    skip_bad: SkipBad = False,
    tokenizer: Tokenizer = None,
    videos: Annotated[bool, typer.Option("--videos/--no-videos", help="Whether the videos have to be there.")] = True,
    out: Annotated[Path | None, typer.Option(help="With --skip-bad: write the sound records to this file.")] = None,
) -> None:
    """Check a set: every record, its video, its frames; with --tokenizer also that image placeholders fit the frames.

    The first bad record is named and ends it with exit code 2; with --skip-bad all of them are listed and counted.

    Examples:

        playhead data validate sets/round1 --tokenizer embedded
        playhead data validate sets/round1 --skip-bad --out sets/round1/sound.jsonl
    """
    from ..core.trajectory import write_trajectories
    from ..train.data.sets import TrajectorySet, Validator

    if out is not None and not skip_bad:
        raise UsageProblem("--out is for the sound records that --skip-bad leaves; give both")
    bad = _Skipped(skip_bad, names=True)
    chosen = TrajectorySet(source)
    if out is not None and out.resolve().parent != chosen.folder.resolve():
        raise UsageProblem(f"--out {out}: write it into {chosen.folder}, where the frames are")
    validator = Validator(chosen, _renderer(tokenizer), videos)
    sound = validator.read(bad.note)
    count = write_trajectories(out, sound) if out is not None else sum(1 for _ in sound)
    left = f", {bad.count} bad ones left out" if bad.count else ""
    say(f"{out or chosen.file}: {count} sound records{left}")


def export(
    source: Set,
    to: Annotated[str, typer.Option("--format", help="trl, ms-swift, llama-factory, verl or longvt.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a set in the form that another trainer reads: its messages, calls, tools and images.

    Examples:

        playhead data export sets/round1 --format trl --out exports/trl
        playhead data export sets/round1 --format llama-factory --out exports/lf
    """
    from ..train.data.formats import exporter
    from ..train.data.sets import TrajectorySet, Validator

    write, bad, chosen = exporter(to), _Skipped(skip_bad), TrajectorySet(source)
    done = write(Validator(chosen, videos=False).read(bad.note), chosen.store(), out, chosen.tools())
    bad.say_how_many()
    if as_json:
        print(json.dumps({"path": str(done.path), "count": done.count, "left_out": done.left_out, "skipped": bad.count}))
        return
    left = f"; {done.left_out} left out, with words that the model did not say" if done.left_out else ""
    say(f"{done.path}: {done.count} conversations, {done.images} images{left}")
    say(done.use)


def import_(
    source: Annotated[Path, typer.Argument(help="A parquet, JSON or JSONL file of another tool.", metavar="FILE")],
    form: Annotated[str, typer.Option("--format", help="longvt (OpenAI-style messages) or llama-factory (ShareGPT).")],
    out: Annotated[Path, typer.Option(help="The folder of the set to write.")],
    media: Annotated[
        Path | None, typer.Option(help="Where relative image and video paths count from; else the file's folder.")
    ] = None,
    tokenizer: Tokenizer = None,
    frames: Annotated[int, typer.Option(help="Uniform frames that stand for a whole video.", min=1)] = 8,
    max_side: Annotated[int, typer.Option(help="They are at most this many pixels on their longer side.", min=16)] = 448,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Read another tool's conversations as a set.

    Their tokens are unknown, so the trajectories say exact=False; with --tokenizer they are written in its tokens and can be
    trained on (SFT; they have no log-probs).

    Examples:

        playhead data import rft.parquet --format longvt --media videos --tokenizer /models/Qwen3-VL-8B --out sets/longvt
        playhead data import data.json --format llama-factory --out sets/shared
    """
    from ..train.data.formats import parser
    from ..train.data.formats.importing import Place, import_set

    bad = _Skipped(skip_bad, names=True)
    place = Place(folder=media or source.parent, frames=frames, max_side=max_side)
    done = import_set(source, parser(form), out, place, _renderer(tokenizer), bad.note)
    if as_json:
        print(json.dumps({"path": str(done.path), "count": done.count, "skipped": bad.count}))
        return
    exact = "exact" if tokenizer else "not exact: give --tokenizer to train on them"
    left = f", {bad.count} bad ones left out" if bad.count else ""
    say(f"{done.path}: {done.count} trajectories ({exact}){left}")


def think(
    source: Set,
    model: Annotated[str, typer.Option(help="The strong policy that writes: as `playhead ask --model` takes it.")],
    tokenizer: Annotated[str, typer.Option(help="embedded, or the checkpoint that will learn the thoughts.")],
    out: Annotated[Path, typer.Option(help="The folder of the set to write.")],
    verifier: Annotated[
        str | None, typer.Option(help="Who has to come to the same answer after the thoughts; else the strong policy.")
    ] = None,
    attempts: Annotated[int, typer.Option(help="Tries for each thought.", min=1)] = 2,
    workers: Annotated[int, typer.Option(help="Trajectories at once.", min=1)] = 8,
    skip_bad: SkipBad = False,
) -> None:
    """Chain of thought for the paths of a set, by a strong policy; kept only where a verifier comes to the same answer.

    Calls, results and answers stay as they are. The new trajectories are exact for SFT and have no log-probs.

    Examples:

        playhead data think sets/oracle --model http://127.0.0.1:8000/v1#BIG --tokenizer embedded --out sets/thoughts
    """
    import asyncio

    from ..agent.policies.loading import load_renderer
    from ..agent.video_agent import VideoAgent
    from ..train.data.logbook import SET_FILE
    from ..train.data.sets import TrajectorySet, Validator, write_set
    from ..train.data.thoughts import Follows, Thinker, write_thoughts

    bad, chosen = _Skipped(skip_bad), TrajectorySet(source)
    if (out / SET_FILE).exists():
        raise UsageProblem(f"--out {out}: holds a set already; name another folder")
    quiet_loading(model)
    strong = VideoAgent(model, frames=chosen.folder / "frames").policy
    judge = strong if verifier is None else VideoAgent(verifier, frames=chosen.folder / "frames").policy
    paths, tools = list(Validator(chosen, videos=False).read(bad.note)), chosen.tools()
    thinker, follows = Thinker(policy=strong, attempts=attempts), Follows(policy=judge, tools=tools)
    renderer = load_renderer(_checkpoint(tokenizer))
    done = asyncio.run(write_thoughts(paths, thinker, renderer, tools, (follows,), workers))
    count = write_set(out, done.kept, tools, chosen.store()).trajectories
    bad.say_how_many()
    lost = "".join(f"\n{n:6d} {why}" for why, n in done.lost.most_common())
    say(f"{out / SET_FILE}: {count} of {len(paths)} with thoughts{lost}")


def rerender(
    source: Set,
    tokenizer: Annotated[str, typer.Option(help="embedded, or the checkpoint that will learn from the set.")],
    out: Annotated[Path, typer.Option(help="The folder of the set to write.")],
    skip_bad: SkipBad = False,
) -> None:
    """The words of a set in the tokens of the model that will learn them.

    For what was played by a model behind a server, whose tokens nobody knows (exact=False: training refuses it), or by one
    with another tokenizer. Calls, results, answers and frames stay as they are. The new trajectories are exact for SFT and
    have no log-probs.

    Examples:

        playhead collect --data tasks.jsonl --model http://127.0.0.1:8000/v1#BIG --keep correct --out sets/big
        playhead data rerender sets/big --tokenizer /models/Qwen3-VL-8B --out sets/big-8b
    """
    from ..train.data.logbook import SET_FILE
    from ..train.data.rerender import rerender_all
    from ..train.data.sets import TrajectorySet, Validator, write_set

    renderer, bad, chosen = _renderer(tokenizer), _Skipped(skip_bad, names=True), TrajectorySet(source)
    assert renderer is not None
    tools = chosen.tools()
    made = rerender_all(Validator(chosen, videos=False).read(bad.note), renderer, tools, bad.note)
    count = write_set(out, made, tools, chosen.store()).trajectories
    left = f", {bad.count} bad ones left out" if bad.count else ""
    say(f"{out / SET_FILE}: {count} trajectories{left}")


def drops_table(drops: Sequence[Drop]) -> Table:
    """What each filter saw, dropped and kept."""
    from rich.table import Table

    table = Table("filter", "seen", "dropped", "kept")
    for drop in drops:
        table.add_row(drop.name, str(drop.seen), str(drop.dropped), str(drop.seen - drop.dropped))
    return table


class _Skipped:
    """Bad records: the first is raised, or all are counted."""

    def __init__(self, skip: bool, *, names: bool = False) -> None:
        self.count, self._skip, self._names = 0, skip, names

    def note(self, error: PlayheadError) -> None:
        if not self._skip:
            raise error
        self.count += 1
        if self._names:
            tell(str(error))

    def say_how_many(self) -> None:
        if self.count:
            tell(f"{self.count} bad records left out; `playhead data validate --skip-bad` lists them")


def _renderer(tokenizer: str | None) -> ChatRenderer | None:
    if tokenizer is None:
        return None
    from ..agent.policies.loading import load_renderer

    return load_renderer(_checkpoint(tokenizer))


def _checkpoint(name: str) -> str:
    from ..agent.embedded import EMBEDDED, checkpoint_dir

    quiet_loading(name)
    return str(checkpoint_dir()) if name == EMBEDDED else name

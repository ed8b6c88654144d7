"""The door: what is said on stdout and stderr, exit codes, and that bad input is one line and never a traceback."""

import json
from pathlib import Path

import pytest
from playhead.cli import run
from playhead.cli.note import is_world_film
from playhead.cli.options import UsageProblem, parse_budget, parse_choices, parse_load
from playhead.core.budget import Budget
from playhead.core.trajectory import write_trajectories
from playhead.world.film import TAG


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nonsense"], "No such command"),
        (["ask"], "Missing argument"),
        (["ask", "gone.mp4", "Why?"], "gone.mp4"),
        (["ask", "gone.mp4", " "], "question is empty"),
        (["ask", "text.mp4", "Why?"], "text.mp4"),
        (["ask", "empty.mp4", "Why?"], "empty.mp4"),
        (["ask", ".", "Why?"], "directory"),
        (["ask", "gone.mp4", "Why?", "--choices", "one"], "--choices"),
        (["ask", "gone.mp4", "Why?", "--budget", "frames"], "NAME=NUMBER"),
        (["ask", "gone.mp4", "Why?", "--budget", "frames=-1"], "frames"),
        (["ask", "gone.mp4", "Why?", "--dtype", "int3"], "--dtype"),
        (["eval", "world", "--data", "gone", "--out", "r", "--model", "http://u:hush@h:port/v1#m"], "no user, password"),
        (["eval", "world", "--data", "gone", "--out", "r", "--model", "HTTP://h:port/v1#m"], "not an address"),
        (["ask", "gone.mp4", "Why?", "--device-map", ""], "--device-map is empty"),
        (["ask", "gone.mp4", "Why?", "--model", "http://h/v1#m", "--four-bit"], "--four-bit: for models loaded in"),
        (["eval", "world", "--data", "gone", "--out", "r", "--model", "https://h/v1#m", "--adapter", "a"], "--adapter"),
        (["demo", "--model", "http://h/v1#m", "--attention", "sdpa"], "--attention"),
        (["index", "gone.mp4"], "gone.mp4"),
        (["index", "gone.mp4", "--mode", "dreams"], "dreams"),
        (["search", "gone.mp4", "red star"], "gone.mp4"),
        (["search", "gone.mp4", ""], "query is empty"),
        (["search", "gone.mp4", "x", "-k", "0"], "-k"),
        (["world", "make", "--out", "w", "--minutes", "1"], "minutes"),
        (["world", "make", "--out", "w", "--minutes", "long"], "--minutes"),
        (["world", "make", "--out", "text.mp4"], "not a folder"),
        (["eval", "world", "--data", "gone", "--out", "run"], "gone"),
        (["eval", "world", "--data", "gone", "--out", "run", "--strategy", "hope"], "hope"),
        (["eval", "world", "--data", "gone", "--out", "run", "--frames", "8"], "--frames"),
        (["eval", "world", "--data", "gone", "--out", "run", "--workers", "0"], "--workers"),
        (["eval", "world", "--data", "gone", "--out", "run", "--budget", "frames=-1"], "frames"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "tools"], "gone"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "tools,hope"], "hope"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "vote,vote:n=8"], "twice"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "tools", "--budgets", "frame=3"], "--budgets 'frame=3'"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "tools", "--cost", "tokens,gold"], "gold"),
        (["scale", "--data", "gone", "--out", "run", "--strategies", "tools", "--picture", "a.docx"], ".svg"),
        (["view", "gone.jsonl"], "gone.jsonl"),
        (["view", "text.mp4"], "not JSON"),
        (["view", "text.mp4", "--only", "best"], "--only"),
        (["demo", "--minutes", "1", "--out", "w"], "minutes"),
    ],
)
def test_bad_input_is_one_line_and_two(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.mp4").write_text("this is no video\n")
    Path("empty.mp4").touch()
    assert run(args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and says in said.err and said.err.startswith("playhead: ")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("playhead 0.")
    for command in (["ask"], ["index"], ["search"], ["world", "make"], ["eval", "world"], ["scale"], ["view"], ["demo"]):
        assert run([*command, "--help"]) == 0
        assert "Examples" in capsys.readouterr().out
    assert run([]) == 2
    assert "Usage" in capsys.readouterr().out


def test_budgets_in_words() -> None:
    assert parse_budget(None) is None
    assert parse_budget("frames=64, seconds=20.5") == Budget(frames=64, wall_s=20.5)
    assert parse_budget("calls=3,tokens=none", Budget(turns=2)) == Budget(turns=2, tool_calls=3, sampled_tokens=None)
    for bad in ("frames", "frames=", "frames=4.5", "hope=1", "turns=0", "=3"):
        with pytest.raises(UsageProblem, match="--budget"):
            parse_budget(bad)


def test_choices_in_words() -> None:
    assert parse_choices(None) == ()
    assert parse_choices("red, green ,blue") == ("red", "green", "blue")
    assert parse_choices("red, of course|green") == ("red, of course", "green")
    for bad in ("", "red", "red,red", "|"):
        with pytest.raises(UsageProblem, match="--choices"):
            parse_choices(bad)


def test_load_flags_in_words() -> None:
    from playhead import LoadOptions

    assert parse_load("embedded") is None and parse_load("http://h/v1#m") is None
    assert parse_load("m", dtype="bfloat16", four_bit=True) == LoadOptions(dtype="bfloat16", four_bit=True)
    assert parse_load("m", device_map="auto", attention="sdpa", adapter="a") == LoadOptions(
        device_map="auto", attention="sdpa", adapter="a"
    )
    assert parse_load("m", cache_gb=2.5, adapter="a") == LoadOptions(cache_gb=2.5, adapter="a")
    with pytest.raises(UsageProblem, match="--cache-gb: cache_gb must be more than 0"):
        parse_load("m", cache_gb=0.0)
    with pytest.raises(UsageProblem, match="--cache-gb: for models loaded in this process"):
        parse_load("http://h/v1#m", cache_gb=1.0)
    with pytest.raises(UsageProblem, match="--dtype: dtype must be one of"):
        parse_load("m", dtype="int3")


def test_a_world_film_is_known_by_its_mark(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"ftyp" + bytes(5 << 20) + TAG.encode())  # the header of an MP4 file may stand at its end
    assert is_world_film(film)
    film.write_bytes(b"ftyp" + bytes(100))
    assert not is_world_film(film)


def test_view_writes_a_page_even_where_the_video_is_gone(make_task, make_trajectory, capsys) -> None:
    right, wrong = make_task(number=1), make_task(number=2)
    write_trajectories(Path("t.jsonl"), [make_trajectory(right), make_trajectory(wrong, said="right")])
    assert run(["view", "t.jsonl", "--out", "deep/page.html"]) == 0
    page = Path("deep/page.html").read_text()
    assert page.count("<section") == 2 and "no such file" in page
    assert "2 episodes" in capsys.readouterr().out
    assert run(["view", "t.jsonl", "--only", "wrong"]) == 0
    assert Path("page.html").read_text().count("<section") == 1


def test_the_whole_path_on_a_film_of_the_world(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (film,) = (world / "videos").glob("*.mp4")
    assert run(["ask", str(film), "Why?", "--model", "./no/such/folder", "--dtype", "auto"]) == 2
    assert "no/such/folder" in capsys.readouterr().err
    assert run(["index", str(film), "--encoder", "no/such/encoder"]) == 2
    assert "no/such/encoder" in capsys.readouterr().err
    assert run(["index", str(film), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 240
    assert run(["search", str(film), "red star", "-k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["hits"]) == 3 and Path(found["sheet"]).read_bytes().startswith(b"\x89PNG")
    assert run(["search", str(film), "red star", "-k", "2"]) == 0
    assert capsys.readouterr().out.count(" to ") == 2
    args = ["ask", str(film), "What colour is the star?", "--choices", "red,blue", "--json", "--save", "t.jsonl"]
    args += ["--attention", "eager"]
    assert run(args) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["usage"]["turns"] >= 1 and answer["stop_reason"] == "answered" and answer["error"] is None
    assert run(["ask", str(film), "When does the star appear?", "--trace", "--budget", "turns=3,frames=40"]) == 0
    said = capsys.readouterr()
    assert "skim" in said.err and "act" in said.err and "evidence" in said.out
    assert run(["view", "t.jsonl", "--out", "page.html"]) == 0
    assert "data:image/jpeg" in Path("page.html").read_text()

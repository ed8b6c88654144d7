"""`playhead ask` with a model behind a server (`fault_server.py`): stdout and stderr, exit codes, the notebook."""

import json
from pathlib import Path

import pytest
from colour_films import red_film
from fault_server import no_key, say, served
from playhead.agent.policies.openai.server import Server
from playhead.cli import run
from playhead.cli.note import ENCODER_NOTE, MODEL_NOTE, embedded_only
from playhead.core.trajectory import read_trajectories

__all__ = ["no_key", "red_film"]
SAID = "<answer>red</answer>\n<evidence>30.0-34.0</evidence>\n<box>31.0: 100,200,500,999; 32.5: 0,0,1000,1000</box>"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Server, "_pause", lambda *_: 0.0)


def ask(film: Path, url: str, *more: str, question: str = "Which?") -> int:
    return run(["ask", str(film), question, "--model", url if "#" in url else f"{url}#m", *more])


def test_boxes_are_shown_and_emitted(red_film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(lambda x: say(x, SAID)) as server:
        assert ask(red_film, server.url, "--strategy", "direct", "--json") == 0
        assert ask(red_film, server.url, "--strategy", "direct") == 0
    said, _, shown = capsys.readouterr().out.rpartition("}\n")
    made = json.loads(said + "}")
    assert made["boxes"] == [{"time_s": 31.0, "box": [100, 200, 500, 999]}, {"time_s": 32.5, "box": [0, 0, 1000, 1000]}]
    assert made["evidence"] == [[30.0, 34.0]]
    assert "\nboxes: 31.0: 100,200,500,999; 32.5: 0,0,1000,1000 (second: left,top,right,bottom in thousandths)\n" in shown


async def unknown(x) -> None:
    await x.refuse(404, {"error": {"message": f"the model {x.body['model']} does not exist, " + "very much so " * 20}})


async def forbidden(x) -> None:
    await x.refuse(401, {"error": {"message": "bad key"}})


@pytest.mark.parametrize("strategy", [None, "direct", "vote(direct,n=2)"])
@pytest.mark.parametrize(("script", "why"), [(unknown, "404 Status: the model nope"), (forbidden, "401"), (None, "no server")])
def test_a_server_that_cannot_be_asked_is_one_line_and_two(red_film, capsys, script, why, strategy) -> None:
    how = [] if strategy is None else ["--strategy", strategy]
    with served(script or unknown) as server:
        url = f"{server.url if script else 'http://127.0.0.1:9/v1'}#nope"
        assert ask(red_film, url, *how) == 2
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if not line.startswith("playhead: note: ")]
        assert said.out == "" and len(lines) == 1 and lines[0].startswith("playhead: ") and why in lines[0]
        assert ask(red_film, url, *how, "--json", "--save", "t.jsonl") == 2
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert made["answer"] is None and made["boxes"] == [] and why in made["error"] and why in said.err
    assert [t.error for t in read_trajectories(Path("t.jsonl"))] == [made["error"]]


@pytest.mark.parametrize("url", ["http://u:hush@h:port/v1#m", "http://u:hush@[bad/v1#m", "HTTP://u:hush@h/v1#m", "ws://u:hush@h#m"])
def test_a_password_in_an_address_is_never_said(red_film, capsys, url) -> None:
    assert ask(red_film, url) == 2
    said = capsys.readouterr()
    assert "hush" not in said.out + said.err and said.err.count("\n") == 1


def test_what_is_said_of_the_embedded_ones_is_said_of_those_in_use(red_film, capsys) -> None:
    with served(lambda x: say(x, SAID)) as server:
        assert ask(red_film, server.url) == 0
        assert capsys.readouterr().err == f"playhead: note: {ENCODER_NOTE}\n"
        assert ask(red_film, server.url, "--strategy", "direct") == 0
        assert capsys.readouterr().err == "", "nothing is searched"
    assert embedded_only(red_film, model=True, encoder=True) == (MODEL_NOTE, ENCODER_NOTE)
    assert capsys.readouterr().err == f"playhead: note: {MODEL_NOTE}\nplayhead: note: {ENCODER_NOTE}\n"
    assert "--encoder" not in MODEL_NOTE and "--model" not in ENCODER_NOTE


def test_a_strategy_without_decisions_has_a_trace_too(red_film, capsys) -> None:
    with served(lambda x: say(x, SAID)) as server:
        assert ask(red_film, server.url, "--strategy", "glance", "--trace") == 0
    said = capsys.readouterr()
    assert "glance" in said.err and "red" in said.err


def test_a_notebook_keeps_what_was_noted(red_film, capsys) -> None:
    def call(name: str, **arguments: object) -> dict:
        return {"index": 0, "id": "a", "function": {"name": name, "arguments": json.dumps(arguments)}}

    async def script(x) -> None:
        if x.body["messages"][-1]["role"] == "tool":
            await say(x, SAID)
        elif "First" in json.dumps(x.body["messages"]):
            await say(x, calls=(call("note", text="a scarlet flash", start_s=30, end_s=34),))
        else:
            await say(x, calls=(call("recall", query="scarlet"),))

    def results(server) -> list[str]:
        return [json.dumps(x.body["messages"][-1]) for x in server.seen if x.body["messages"][-1]["role"] == "tool"]

    with served(script) as server:
        assert ask(red_film, server.url, "--notebook", "deep/n.sqlite", question="First?") == 0
        assert ask(red_film, server.url, "--notebook", "deep/n.sqlite", question="Second?") == 0
        offered = [{t["function"]["name"] for t in x.body["tools"]} for x in server.seen]
        assert Path("deep/n.sqlite").is_file() and all({"note", "recall"} <= names for names in offered)
        assert "scarlet flash" in results(server)[1]
        seen = len(server.seen)
        assert ask(red_film, server.url, question="Third?") == 0
        assert not {"note", "recall"} & {t["function"]["name"] for t in server.seen[seen].body["tools"]}
    capsys.readouterr()
    Path("text").write_text("this is no notebook, and it is longer than a page of SQLite is short" * 40)
    assert ask(red_film, "http://127.0.0.1:9/v1", "--notebook", "text") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "text: not a memory of texts" in said.err

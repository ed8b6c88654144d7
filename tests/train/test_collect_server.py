"""`playhead collect` with a model behind an OpenAI-compatible server: what it says becomes a set; its tokens are nobody's; the
key is in no file. And how such a set is learned from."""

import json
import sys
from dataclasses import replace

import fault_server as faults
import pytest
from fault_server import served
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.cli import run
from playhead.core.errors import DataError
from playhead.core.nouns import Task
from playhead.core.tasks import write_tasks
from playhead.core.trajectory import read_trajectories
from playhead.train.episodes import read_episodes

pytestmark = pytest.mark.timeout(300)

KEY = "sk-a-secret-that-nobody-may-see"
SEEDS: list[int] = []
"""Of the answers, in the order in which they were asked for."""
ZOOM = {"index": 0, "id": "a", "function": {"name": "temporal_zoom", "arguments": '{"start_s": 29, "end_s": 34}'}}


async def big_model(x) -> None:
    """Looks, then answers: rightly, but for the third seed. The second question is refused, with the key in the reply."""
    if "ORDER" in json.dumps(x.body["messages"]):
        await x.refuse(401, {"error": {"message": f"not with {x.headers['authorization']}"}})
    elif x.body.get("tools") and not any(m["role"] == "assistant" for m in x.body["messages"]):
        await faults.say(x, "<think>where?</think>", calls=(ZOOM,), completion_tokens=11, prompt_tokens=500)
    else:
        if x.body.get("tools") and x.body["seed"] not in SEEDS:
            SEEDS.append(x.body["seed"])
        colour = "blue" if x.body.get("tools") and SEEDS[2:] == [x.body["seed"]] else "red"
        said = f"<think>I see.</think><answer>{colour}</answer><evidence>30.0-34.0</evidence>"
        await faults.say(x, said, completion_tokens=9)


@pytest.fixture(scope="module")
def collected(film, tmp_path_factory):
    """(the folder of the set, the server's memory, what was printed)."""
    root = tmp_path_factory.mktemp("server")
    SEEDS.clear()
    task = Task(id="t0", question="Which colour?", video=str(film), choices=("red", "blue"), answer="red")
    write_tasks(root / "tasks.jsonl", [task, replace(task, id="t1", question="Which ORDER?")])
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch, served(big_model) as server:
        patch.setenv("PLAYHEAD_API_KEY", KEY)
        patch.setenv("PLAYHEAD_HOME", str(root / "home"))
        patch.setattr(sys.stdout, "write", lambda text: printed.append(text) or len(text))
        patch.setattr(sys.stderr, "write", lambda text: printed.append(text) or len(text))
        args = ["collect", "--data", str(root / "tasks.jsonl"), "--model", f"{server.url}#big", "--n", "3"]
        keep = ["--keep", "correct,format,agreement,verified"]
        assert run([*args, *keep, "--budget", "turns=3", "--out", str(root / "set")]) == 0
    return root / "set", server, "".join(printed)


def test_what_a_server_said_becomes_a_set(collected):
    folder, server, printed = collected
    drops = {d["name"]: (d["seen"], d["dropped"]) for d in json.loads((folder / "card.json").read_text())["drops"]}
    assert drops == {
        "failed": (6, 3), "twice": (3, 1), "correct": (2, 1), "format": (1, 0), "agreement": (1, 0), "verified": (1, 0)
    }  # fmt: skip
    (kept,) = read_trajectories(folder / "trajectories.jsonl")
    assert kept.model.endswith("#big") and kept.reward_parts and kept.answer is not None and kept.answer.choice == 0
    assert [c.name for t in kept.turns for c in t.tool_calls] == ["temporal_zoom"]
    assert kept.evidence_seen and kept.frames  # tools ran here, and the server was shown what they returned
    asked = [x.body for x in server.seen if x.body.get("tools") is None]
    assert len(asked) == 2 and all("image_url" in json.dumps(b["messages"][-1]) for b in asked)  # the verifier: red and red
    assert "3 episodes failed" in " ".join(printed.split())


def test_its_tokens_are_nobodys_and_training_refuses_them(collected, checkpoint):
    folder, *_ = collected
    (kept,) = read_trajectories(folder / "trajectories.jsonl")
    assert not kept.exact and not any(t.completion.exact for t in kept.turns)
    assert json.loads((folder / "card.json").read_text())["exact"] == 0
    with pytest.raises(DataError, match=r"trajectories.jsonl:1: trajectory t0\.\d: .*exact=False"):
        read_episodes([folder], Qwen3VLRenderer.from_checkpoint(checkpoint))


def test_the_key_is_in_no_file(collected):
    folder, server, printed = collected
    assert {x.headers["authorization"] for x in server.seen} == {f"Bearer {KEY}"}
    files = [f for f in folder.parent.rglob("*") if f.is_file()]
    assert {"episodes.jsonl", "manifest.json", "card.md", "verdicts.jsonl"} <= {f.name for f in files}
    assert not [f for f in files if KEY.encode() in f.read_bytes()] and KEY not in printed
    assert "[key]" in (folder / "episodes.jsonl").read_text()  # the server did say it


def test_written_in_the_learners_tokens_it_can_be_learned(collected, checkpoint, tmp_path, capsys):
    folder, *_ = collected
    out = tmp_path / "exact"
    command = ["data", "rerender", str(folder), "--tokenizer", str(checkpoint), "--out", str(out)]
    assert run(command) == 0 and "1 trajectories" in " ".join(capsys.readouterr().out.split())
    renderer = Qwen3VLRenderer.from_checkpoint(checkpoint)
    (sample,) = read_episodes([out], renderer).samples
    (before,), (after,) = (list(read_trajectories(f / "trajectories.jsonl")) for f in (folder, out))
    said = renderer.decode([t for t, m in zip(sample.token_ids_T, sample.loss_mask_T, strict=True) if m])
    assert said == "".join(t.completion.text + "<|im_end|>" for t in before.turns)
    assert (after.messages, after.answer, after.frames, after.exact) == (before.messages, before.answer, before.frames, True)
    assert json.loads((out / "card.json").read_text())["exact"] == 1
    assert (out / "manifest.json").is_file() and run(["data", "validate", str(out), "--tokenizer", str(checkpoint)]) == 0
    assert run(command) == 2 and "holds a set already" in capsys.readouterr().err


def test_what_cannot_be_written_is_named_or_left_out(collected, checkpoint, tmp_path, capsys):
    folder, *_ = collected
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "frames").symlink_to(folder / "frames")
    line = (folder / "trajectories.jsonl").read_text()
    evil = json.loads(line)
    evil["turns"][0]["completion"]["text"] += "<|im_end|>"
    (bad / "trajectories.jsonl").write_text(json.dumps({**evil, "id": "evil"}) + "\n" + line)
    command = ["data", "rerender", str(bad), "--tokenizer", str(checkpoint), "--out"]
    assert run([*command, str(tmp_path / "a")]) == 2
    assert "trajectory evil, turn 0" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a" / "trajectories.jsonl").exists()
    assert run([*command, str(tmp_path / "b"), "--skip-bad"]) == 0
    assert "1 trajectories, 1 bad ones left out" in " ".join(capsys.readouterr().out.split())

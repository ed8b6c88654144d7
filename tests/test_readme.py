"""The README is executed: its Python runs as written, its commands exist with the flags it names, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from playhead.cli import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, "" for those of none."""
    fences = re.split(r"^```(.*)\n", README, flags=re.M)  # text, language, block, "", text, language, ...
    return [block for name, block in zip(fences[1::4], fences[2::4], strict=True) if name == language]


def test_the_story_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    (story,) = blocks("python")
    exec(compile(story, "README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out
    assert "->" in said and "search_clips" in said and "frames," in said


def test_the_commands_exist_with_their_flags(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| `playhead ([a-z ]+?)(?: [A-Z\"-].*?)?` \|.*?\| (.*?) \|$", README, re.M)
    assert len(rows) >= 7
    for command, flags in rows:
        assert run([*command.split(), "--help"]) == 0
        told = capsys.readouterr().out
        for flag in re.findall(r"`(--?[a-z]+)", flags):
            assert flag in told, f"playhead {command} has no {flag}"


def test_the_shell_lines_name_real_commands(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("playhead ")]
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        command = words[:2] if words[0] in ("world", "eval", "train", "data", "rewards") else words[:1]
        assert run([*command, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(word in told for word in words if word.startswith("--")), line


def test_make_targets_and_links_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (demo|test|check|bench|model|clean)\b", README):
        assert re.search(rf"^{target}:", makefile, re.M)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).is_file(), f"README links to {link}"


def test_the_tree_is_the_tree() -> None:
    (tree,) = (b for b in blocks("") if b.startswith("core/"))
    for line in tree.splitlines():
        assert (ROOT / line.split("/")[0]).is_dir(), line

"""The order of the house: who may import whom, and which room owns which heavy library. Read from the source, nothing runs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "core": set(),
    "memory": {"core"},
    "tools": {"memory", "core"},
    "agent": {"tools", "memory", "core"},
    "world": {"core"},
    "train": {"agent", "tools", "memory", "core", "world"},
    "evals": {"agent", "tools", "memory", "core", "world"},
    "demo": {"agent", "tools", "memory", "core", "world", "train", "evals"},
    "cli": {"agent", "tools", "memory", "core", "world", "train", "evals", "demo"},
}
OWNERS = {
    "av": ("core/", "world/film.py", "train/embedded/reels.py"),  # decodes; encodes; films in memory
    "decord": ("core/decoders/decord.py",),
    "faiss": ("memory/index.py",),
    "open_clip": ("memory/encoder.py", "train/embedded/clip.py"),
    "langgraph": ("agent/graph.py", "agent/saving.py"),  # the graph, and what saves its state
    "matplotlib": ("train/curves.py", "evals/picture.py"),
    "trl": ("train/",),
    "peft": ("train/",),
}
LIGHT = ("", "core")
"""`import playhead` and what it opens at once: these load nothing heavy at module level."""


def modules() -> list[Path]:
    files = [*ROOT.glob("*.py"), *(f for room in BELOW for f in (ROOT / room).rglob("*.py"))]
    return sorted(f.relative_to(ROOT) for f in files)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports, ours as "playhead.room...", with their lines; also inside functions."""
    package = ("playhead", *path.parts[:-1])
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *((node.module,) if node.module else ())))
            yield (name, node.lineno)
            if node.level and not node.module:
                yield from ((f"{name}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_every_import_goes_down(path: Path) -> None:
    room = path.parts[0] if len(path.parts) > 1 else None
    for name, line in imports(path):
        parts = name.split(".")
        assert parts[0] not in BELOW, f"{path}:{line} imports {name} bare: a second copy of playhead.{name}"
        if parts[0] != "playhead" or len(parts) == 1:
            continue
        target = parts[1]
        if room is not None and target in BELOW and target != room:
            assert target in BELOW[room], f"{path}:{line}: {room}/ may not import {target}/"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_heavy_libraries_have_owners(path: Path) -> None:
    for name, line in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        allowed = owners is None or any(path.as_posix().startswith(o) for o in owners)
        assert allowed, f"{path}:{line}: {name} belongs to {', '.join(owners or ())}"


def test_a_bare_or_upward_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "bad.py").write_text("from ..agent import graph\nfrom .. import memory\nimport tools.format\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = [name for name, _ in imports(Path("core/bad.py"))]
    assert found == ["playhead.agent", "playhead", "playhead.memory", "tools.format"]
    with pytest.raises(AssertionError, match="may not import agent"):
        test_every_import_goes_down(Path("core/bad.py"))

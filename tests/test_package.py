"""The package as it is installed: what a wheel holds, what an import costs, and that nothing shadows the standard library."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "torchvision", "transformers", "langgraph", "langchain_core", "faiss", "open_clip", "av", "decord", "trl")
NOT_PACKAGES = ("tests", "benchmarks", "examples", "docs", "build", "dist", "runs", ".venv")


def python(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_of_packages_is_the_tree() -> None:
    found = {"playhead"}
    rooms = [d for d in ROOT.iterdir() if d.is_dir() and d.name not in NOT_PACKAGES and not d.name.startswith(".")]
    for init in (i for room in rooms for i in room.rglob("__init__.py")):
        found.add(".".join(("playhead", *init.relative_to(ROOT).parts[:-1])))
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


@pytest.mark.timeout(180)
def test_a_wheel_holds_what_the_tree_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves folders behind: not in the checkout
    names = (".git", ".venv", "build", "dist", "runs", "tests", "*.egg-info", "__pycache__", ".*_cache", "*.part")
    skip = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, source, ignore=skip, symlinks=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("playhead-*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("playhead/")}

    wanted = {f"playhead/{f.name}" for f in ROOT.glob("*.py")} | {"playhead/py.typed"}
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        if folder != ROOT:
            kinds = (".py", ".css", ".js", ".html", ".jinja")
            wanted |= {f"playhead/{f.relative_to(ROOT).as_posix()}" for f in folder.iterdir() if f.suffix in kinds}
    wanted |= {f"playhead/{f.relative_to(ROOT).as_posix()}" for f in (ROOT / "train" / "accelerate").iterdir()}
    models = ROOT / "models" / "embedded"
    wanted |= {f"playhead/{f.relative_to(ROOT).as_posix()}" for f in models.rglob("*") if f.is_file()}
    assert held == wanted


@pytest.mark.parametrize(
    "code",
    [
        "import playhead; dir(playhead)",
        "from playhead.cli import run; assert run(['--help']) == 0",
        "from playhead.cli import run; assert run(['ask', '--help']) == 0",
        "from playhead.cli import run; assert run(['eval', 'world', '--help']) == 0",
    ],
)
def test_the_door_opens_without_heavy_libraries(code: str) -> None:
    said = python(f"import sys, json\n{code}\nprint(); print(json.dumps(sorted(sys.modules)))").splitlines()[-1]
    loaded = set(json.loads(said))
    assert not loaded & set(HEAVY)


def test_public_names_are_all_there() -> None:
    import playhead

    for name in playhead.__all__:
        assert getattr(playhead, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = playhead.no_such_name


def test_no_module_at_the_root_shadows_a_standard_one() -> None:
    names = {f.stem for f in ROOT.glob("*.py")} | {d.name for d in ROOT.iterdir() if (d / "__init__.py").is_file()}
    assert not names & set(sys.stdlib_module_names)


def test_python_dash_m_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "playhead", "ask", str(tmp_path / "no.mp4"), "Why?"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env={**os.environ, "PLAYHEAD_HOME": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no.mp4" in done.stderr

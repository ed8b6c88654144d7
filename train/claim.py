"""The claim on a run's folder: run.json says which run it is of, so that the same command goes on with it and another one
is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import DataError

RUN_FILE = "run.json"


def claim(
    out: Path, run: Mapping[str, Any], *, begun: bool, resume: bool = True, may_differ: Collection[str] = ()
) -> None:
    """Write OUT/run.json; of a run that has `begun` see that it is this one.

    Args:
        run: what it is, as plain JSON.
        begun: there is a state to go on from.
        resume: it may go on.
        may_differ: names of `run` that the same run may have changed.

    Raises:
        DataError: the folder holds another run, or one that may not go on.
    """
    path = out / RUN_FILE
    if begun and not resume:
        raise DataError(f"{out}: holds a run already; choose another --out, or delete it to begin anew")
    if begun and path.is_file():
        before, now = _read(path), json.loads(json.dumps(run))
        odd = [name for name in now if name not in may_differ and before.get(name) != now[name]]
        if odd:
            raise DataError(
                f"{out}: holds a run with another {odd[0]} ({_short(before.get(odd[0]))} instead of {_short(now[odd[0]])}); "
                "choose another --out, or delete it to begin anew"
            )
    elif int(os.environ.get("RANK", "0")) == 0:
        out.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{RUN_FILE}.{os.getpid()}.part")
        beside.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        beside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: does not say which run it is of ({error}); choose another --out, or delete it") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

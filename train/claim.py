"""The claim on a run's folder: run.json says which run it is of, so that the same command goes on with it and another one
is refused; and while the run is under way no other process gets in."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.lock import lock_folder
from ..core.whole import write_json

RUN_FILE = "run.json"


@contextmanager
def claim(
    out: Path, run: Mapping[str, Any], *, begun: bool, resume: bool = True, may_differ: Collection[str] = ()
) -> Iterator[None]:
    """Hold the folder while the run goes on; write OUT/run.json, or of a run that has `begun` see that it is this one.

    Of the processes of one run the first one holds it.

    Args:
        run: what it is, as plain JSON.
        begun: there is a state to go on from.
        resume: it may go on.
        may_differ: names of `run` that the same run may have changed.

    Raises:
        DataError: the folder holds another run, one that may not go on, or one that another process carries out now.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    with closing(lock_folder(out)) if first else nullcontext():
        _check(out, run, begun, resume, may_differ)
        if first and not (begun and (out / RUN_FILE).is_file()):
            write_json(out / RUN_FILE, run)
        yield


def _check(out: Path, run: Mapping[str, Any], begun: bool, resume: bool, may_differ: Collection[str]) -> None:
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: does not say which run it is of ({error}); choose another --out, or delete it") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

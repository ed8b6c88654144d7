"""Files of exports: parquet with a schema that `datasets` knows, JSON lines, JSON lists; written beside, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import DataError

if TYPE_CHECKING:
    from datasets import Features

ROWS_AT_ONCE = 32
"""Rows of a row group: with their images in them, they should fit a reader's memory many times."""


def write_parquet(path: Path, features: Features, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as they come; returns how many. The file says its features, so `load_dataset` decodes images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    count = 0
    with _beside(path) as part, pq.ParquetWriter(part, schema) as writer:
        for batch in _batches(rows):
            count += len(batch)
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return count


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """JSON lines; returns how many."""
    count = 0
    with _beside(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def write_list(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """One JSON list, a row a line; returns how many."""
    count = 0
    with _beside(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(("[\n" if not count else ",\n") + json.dumps(row))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    return count


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, record) of a .parquet, .json or .jsonl file; a line that is not JSON is None, so that the rest can be read.

    Raises:
        DataError: no such file, another kind of file, or not readable as what its name says.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    kinds = {".parquet": _parquet_rows, ".json": _list_rows, ".jsonl": _line_rows}
    if path.suffix not in kinds:
        raise DataError(f"{path}: its name ends in none of {', '.join(kinds)}")
    for number, row in enumerate(kinds[path.suffix](path)):
        yield f"{path}, record {number}", row


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({str(error).splitlines()[0]})") from None


def _list_rows(path: Path) -> Iterator[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of records")
    yield from rows


def _line_rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in filter(str.strip, lines):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block has ended well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{path.parent}: not a folder; name another one") from None
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

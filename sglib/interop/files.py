"""What a file holds, before it is known which format that is: JSON, JSON lines, Parquet or an archive, as rows."""

from __future__ import annotations

import json
from pathlib import Path

from sglib.interop import chat, inspect_log


def rows(path: Path) -> list:
    """The values in a file: each line of JSON lines, the items of a JSON list, else the one value; of Parquet its
    rows, of an `.eval` archive the log."""
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        return [inspect_log.unpack(data)]
    if data.startswith(b"PAR1"):
        return _parquet(path)
    written = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not written:
        return []
    try:
        value = json.loads(data)
        return value if isinstance(value, list) else [value]
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    except ValueError:
        pass
    try:
        json.loads(written[0][1])
    except (ValueError, RecursionError):
        return [chat.parse(data, "the file")]  # one document over many lines: says where it ends
    return [chat.parse(line, f"line {number}") for number, line in written]


def _parquet(path: Path) -> list[dict]:
    import pyarrow.parquet  # imported here: takes a moment, and few files are Parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"no whole Parquet file: {error}") from error

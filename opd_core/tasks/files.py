"""Reading a user's prompt file: JSON lines, JSON, Parquet or CSV, local only."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_core.runs.roots import below_roots
from opd_core.runs.settings import Settings
from opd_core.spec import UserError

if TYPE_CHECKING:
    import datasets

_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def read_columns(path: str, columns: dict[str, str], *, param: str) -> dict[str, list[Any]]:
    """Named columns of a file, as lists of Python values.

    ``columns`` maps a spec field ("task.prompt_column") to the column it names. The file must lie below
    OPD_DATA_ROOTS. Nothing is cached: the file may change between two runs. UserError for whatever is wrong.
    """
    file = below_roots(path, Settings().data_roots, variable="OPD_DATA_ROOTS", param=param)
    builder = _BUILDERS.get(file.suffix.lower())
    if builder is None:
        raise UserError(f"{param}: '{path}' is none of {', '.join(_BUILDERS)}", param=param, code="unknown_format")
    if not file.is_file():
        raise UserError(f"{param}: there is no file '{path}'", param=param, code="missing_file")
    table = _load(file, builder, param)
    for field, name in columns.items():
        if name not in table.column_names:
            raise UserError(
                f"{field}: '{path}' has no column '{name}' (there are {', '.join(table.column_names) or 'none'})",
                param=field,
                code="missing_column",
            )
    return {name: list(table[name]) for name in columns.values()}


def _load(file: Path, builder: str, param: str) -> datasets.Dataset:
    if file.stat().st_size == 0:
        raise UserError(f"{param}: '{file}' is empty", param=param, code="empty_data")
    import datasets  # a second, which a run on the project's own tasks does not need
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()  # they would break up our own progress line, or fill the log
    with tempfile.TemporaryDirectory(prefix="opd-data-") as cache:
        try:
            return datasets.load_dataset(
                builder, data_files=[_literal(file)], split="train", cache_dir=cache, keep_in_memory=True
            )
        # pyarrow's errors are ValueErrors too.
        except (DatasetGenerationError, ValueError) as error:
            if "corresponds to no data" in str(error):
                raise UserError(f"{param}: '{file}' has no rows", param=param, code="empty_data") from error
            cause = error.__cause__ or error
            reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise UserError(
                f"{param}: '{file}' cannot be read as {builder} ({reason[:300]})", param=param, code="broken_data"
            ) from error


def _literal(file: Path) -> str:
    """The path with glob characters escaped: a file name is a name, never a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(file))

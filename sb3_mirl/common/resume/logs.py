"""Log files and recorded values of SB3's logger: read for a checkpoint, and put back."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from stable_baselines3.common.logger import CSVOutputFormat, KVWriter, Logger, TensorBoardOutputFormat


def recorded_values(logger: Logger) -> dict[str, Any]:
    """What was recorded and not written yet."""
    return {name: getattr(logger, name) for name in ("name_to_value", "name_to_count", "name_to_excluded")}


def _open_files(logger: Logger) -> Iterator[tuple[KVWriter, str | None]]:
    """The outputs of a logger, each with the path of its file."""
    for output in logger.output_formats:
        path = getattr(getattr(output, "file", None), "name", None)
        yield output, path if isinstance(path, str) else None


def read_log_files(logger: Logger) -> dict[str, dict[str, Any]]:
    """Content of each log file, and columns of CSV files, by file name. SB3 empties existing log files when it opens them."""
    files: dict[str, dict[str, Any]] = {}
    for output, path in _open_files(logger):
        if path is not None and os.path.isfile(path):
            output.file.flush()  # type: ignore[attr-defined]
            columns = output.keys if isinstance(output, CSVOutputFormat) else None
            files[os.path.basename(path)] = {"content": Path(path).read_bytes(), "columns": columns}
    return files


def restore_log_files(logger: Logger, files: dict[str, dict[str, Any]], num_timesteps: int) -> None:
    """Put log files back to their content at the checkpoint, at ``num_timesteps``. Warns of files without a writer."""
    remaining = dict(files)
    for output, path in _open_files(logger):
        file = remaining.pop(os.path.basename(path), None) if path is not None else None
        if file is not None:
            replace_content(output.file, file["content"])  # type: ignore[attr-defined]
            if isinstance(output, CSVOutputFormat):
                output.keys = file["columns"]
        elif isinstance(output, TensorBoardOutputFormat):
            _hide_later_events(output, num_timesteps)
    if remaining:
        warnings.warn(
            f"The interrupted run wrote {sorted(remaining)}, but this run does not. To continue these log files, call "
            "model.set_logger(configure(folder, formats)) before learn()",
            stacklevel=3,
        )


def replace_content(file: IO[Any], content: bytes) -> None:
    """Replace the content of an open text file; later writes are appended."""
    file.seek(0)
    file.truncate()
    file.write(content.decode())
    file.flush()


def _hide_later_events(output: TensorBoardOutputFormat, num_timesteps: int) -> None:
    """Make TensorBoard discard what was logged after the checkpoint: it is logged again."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = Event(step=num_timesteps + 1, session_log=SessionLog(status=SessionLog.START))
    output.writer.file_writer.add_event(start, step=num_timesteps + 1)  # type: ignore[attr-defined]

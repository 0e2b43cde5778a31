"""Files that are there whole or not at all: :func:`write_whole`."""

import os
import uuid
from pathlib import Path

#: How the names of files end that are still being written, or whose writer was killed
UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """
    Write a file. Whatever happens, ``path`` holds what it held before or the whole content.

    :param path: of the file, whose folder is made if it is not there
    :param content: of the file
    :raises OSError: if it cannot be written
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with open(unfinished, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)

"""Read annotations in text files; errors name the file and the line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pretrainps.errors import DatasetError


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark; each kind of line end becomes a newline.

    Raises:
        DatasetError: the file is missing, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DatasetError(f"{path} is missing, or is no file.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is no text in UTF-8 (byte {error.start}). Is it an archive, or damaged? Fetch it again."
        ) from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not blank, without surrounding blanks, each after its location: "path, line 7".

    Raises:
        DatasetError: the file is missing, or is no text.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line := line.strip():
            yield f"{path}, line {number}", line

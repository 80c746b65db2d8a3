# SPDX-License-Identifier: Apache-2.0
"""A file that is there whole or not at all: it is written beside its place, and then moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOENT
from typing import Any, BinaryIO, Final, Protocol

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerFileError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.text import one_line


class FileSystem(Protocol):
    """As much of fsspec's file systems as a place needs."""

    def isdir(self, path: str) -> bool:
        """Whether there is a folder, or an object below one of that name."""

    def open(self, path: str, mode: str) -> Any:
        """Open a file."""

    def mv(self, path1: str, path2: str) -> None:
        """Move a file, over one that is there."""

    def rm(self, path: str) -> None:
        """Remove a file."""


_PATTERN: Final = frozenset("*?[")


@dataclass(frozen=True)
class Place:
    """Where a file is to be.

    :param files: the file system, of fsspec.
    :param path: within the file system.
    :param shown: what messages call the file.
    """

    files: FileSystem
    path: str
    shown: str

    def __post_init__(self) -> None:
        if not _PATTERN.isdisjoint(self.path):
            raise PromptLayerInvalidInputError(
                f"{self.shown} has one of *, ? and [, which a storage takes for a pattern."
            )

    @contextmanager
    def open_beside(self, mark: str) -> Iterator[BinaryIO]:
        """Open a file beside the place, and move it there when the block has ended well.

        Otherwise it is removed. A file that is in the place already is replaced in one step, on a
        local disk; a storage of objects shows it old or new, as it shows no half-written object.

        :param mark: part of the name of the file beside, so that two writers do not meet.
        :raises PromptLayerInvalidInputError: if there is no such folder, or a folder of that name.
        :raises PromptLayerFileError: if the storage refuses, or has no room.
        """
        beside = self._beside(mark)
        with self._errors():
            if self.files.isdir(self.path):  # the move would end in the folder
                raise self._wrong("There is a folder of that name.")
            try:
                file = self.files.open(beside, "wb")
            except NotADirectoryError as error:
                raise self._wrong("Its folder is a file.") from error
            except FileNotFoundError as error:
                is_bucket = error.strerror != os.strerror(ENOENT)  # it says so
                raise self._wrong(
                    storage_reason(error) if is_bucket else "Its folder does not exist."
                ) from error
        is_whole = False
        try:
            with self._errors():
                yield file
                file.close()
                self.files.mv(beside, self.path)
            is_whole = True
        finally:
            if not is_whole:
                with suppress(Exception):  # the storage may be why it failed
                    file.close()
                self.remove(mark)

    def remove(self, mark: str) -> None:
        """Remove the file beside the place that a writer with this mark has left, if there is one.

        A worker that was killed could not remove it.
        """
        with suppress(Exception):  # mostly FileNotFoundError; it is in no reader's way
            self.files.rm(self._beside(mark))

    def _beside(self, mark: str) -> str:
        folder, slash, name = self.path.rpartition("/")
        return f"{folder}{slash}.{name}.{mark}.part"

    def _wrong(self, reason: str) -> PromptLayerInvalidInputError:
        return PromptLayerInvalidInputError(f"Cannot write {self.shown}: {reason}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PromptLayerError:
            raise
        except Exception as error:
            # A storage raises errors of its own libraries, too, such as those of botocore.
            raise PromptLayerFileError(
                f"Could not write {self.shown}: {storage_reason(error)}"
            ) from error


def storage_reason(error: Exception) -> str:
    """Return what a storage gives as the reason for an error: a sentence in one line."""
    said = error.strerror if isinstance(error, OSError) else None
    return one_line(said or str(error) or type(error).__name__).rstrip(".") + "."

"""Files that are whole or absent: write to a temporary name in the same folder, fsync, rename.

A crash, a kill or a full disk never leaves half a file under the final name, and never harms the one that was
there before. What can remain after `kill -9` is a hidden `.NAME.*.tmp` beside it.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mutoscope.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it is synced to disk and renamed to `path`.

    When the block raises, the temporary file is removed and `path` is as it was. An OSError (no folder, no
    permission, no space) becomes an InputError that names `path`.
    """
    partial = partial_name(path)
    try:
        yield partial
        commit(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        discard(partial)


def partial_name(path: Path) -> Path:
    """A fresh hidden name beside `path`. Raises InputError when `path` is a folder."""
    if path.is_dir():
        raise InputError(f"Cannot write {path}: a folder is there; give the name of a file.")
    return hidden_name(path)


def hidden_name(path: Path) -> Path:
    """A fresh name beside `path` that is not listed by default and tells what it was for."""
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")


def commit(partial: Path, path: Path) -> None:
    """Sync a finished file to disk and give it its name, replacing what was there. Raises OSError."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def discard(partial: Path) -> None:
    """Remove an unfinished file, if it is there."""
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; when the block ends well it takes the name of `folder`.

    An older folder of that name is moved aside first and removed last, and comes back if the second renaming
    fails. Errors are those of `replacing`.
    """
    folder = folder.absolute()
    partial, old = hidden_name(folder), hidden_name(folder)
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in (*partial.iterdir(), partial):
            sync(path)
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(partial, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        sync(folder.parent)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, whole or not at all. Raises InputError when the place cannot be written."""
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


def sync(path: Path) -> None:
    """Ask the disk to keep what was written to a file, or the names within a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for a place that cannot be written."""
    reason = (error.strerror or type(error).__name__).lower()
    return InputError(f"Cannot write {path}: {reason}; free some space or choose another place.")

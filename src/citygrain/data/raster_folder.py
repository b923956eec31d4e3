"""Writing the folder of a city raster so that it is whole or not there.

A folder is written under another name beside its own, and renamed when it is whole and on the disk. `place.json` is
written last: a folder without it is not whole. One process at a time prepares a place.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from citygrain.data.cityraster import CityRaster
from citygrain.errors import DataError
from citygrain.geo.raster_files import BLOCKS, CACHE, LAYOUT, MANIFEST, WAYS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def draft_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; what it holds replaces `folder` at the end of the `with` block.

    The draft lies beside `folder`. When the block fails the draft is removed and `folder` stays as it is. When the
    process is killed the draft stays, and `recover_folder` clears it or, if it was whole, puts it in its place.

    Raises
    ------
    DataError
        When the disk is full, the folder cannot be written, or holds something that is no city raster.
    """
    refuse_strangers(folder)
    draft, _ = _find_siblings(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        for file in draft.iterdir():
            _flush(file)
        _flush(draft)
        _publish(draft, folder)
    except (OSError, RasterioError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _unwritable_error(folder, error) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def recover_folder(folder: Path) -> str | None:
    """Finish or clear what an interrupted run left beside `folder`; return what was done in words, None for nothing.

    Raises
    ------
    DataError
        When the rests cannot be removed.
    """
    draft, old = _find_siblings(folder)
    done = None
    try:
        if draft.exists():
            if _is_whole(draft):
                _publish(draft, folder)
                done = "finished what an interrupted run had all but completed"
            else:
                shutil.rmtree(draft)
                done = "cleared what an interrupted run had left"
        if old.exists():
            if folder.exists():
                shutil.rmtree(old)
            else:
                old.rename(folder)
    except OSError as error:
        raise _unwritable_error(folder, error) from error
    return done


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing the same place meanwhile (where the system knows file locks).

    Raises
    ------
    DataError
        When another process is at it, or the folder's parent cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise _unwritable_error(folder, error) from error
    with handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"{folder} is being prepared by another process.", remedy="wait for it, or stop it"
                ) from None
            except OSError:  # a file system without locks
                pass
        yield


def write_manifest(draft: Path, manifest: Mapping[str, Any]) -> None:
    """Write `place.json`, which makes the draft whole: everything else must be on the disk before."""
    for file in draft.iterdir():
        _flush(file)
    part = draft / f"{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    _flush(part)
    part.replace(draft / MANIFEST)


def _find_siblings(folder: Path) -> tuple[Path, Path]:
    """Return where the draft is written, and where the old folder waits until the new one is in its place."""
    return folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")


def _publish(draft: Path, folder: Path) -> None:
    _, old = _find_siblings(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    draft.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        CityRaster.open(folder)
    except DataError:
        return False
    return True


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder that holds anything but a city raster: it must not be replaced.

    Raises
    ------
    DataError
        For such a folder, or a file in its place.
    """
    if folder.is_dir():
        strangers = sorted({p.name for p in folder.iterdir()} - {LAYOUT, BLOCKS, WAYS, MANIFEST, CACHE})
        strangers = [
            name for name in strangers if not name.startswith((f"{LAYOUT}.", "."))
        ]  # QGIS and Finder add theirs
        if not strangers:
            return
        got = f"it also holds {', '.join(strangers[:5])}"
    elif folder.exists():
        got = "a file"
    else:
        return
    raise DataError(
        f"{folder} is in the way: it is not only a city raster.",
        got=got,
        remedy="move it away, or choose another paths.data or place.name",
    )


def _flush(path: Path) -> None:
    """Push a file or the entries of a folder to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows does not open folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable_error(folder: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error.__cause__ or error)
    try:
        free = f", {shutil.disk_usage(folder.parent).free / 1e9:.2f} GB free"
    except OSError:
        free = ""
    return DataError(
        f"{folder} could not be written; what was there before is untouched.",
        got=f"{reason}{free}",
        remedy="free some room (a city takes about 0.1–0.4 MB a km²) or choose another folder: paths.data=…",
    )

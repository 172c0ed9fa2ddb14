"""make demo: a stack of its own, the story on it, everything gone afterwards."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from pathlib import Path

from devstack import kafka, tell
from devstack.stack import Stack
from devstack.story import Story, StoryFailed
from devstack.supervisor import StartFailed

__all__ = ["StoryFailed", "demo"]


def demo(state: Path, archive: Path | None, tags: tuple[str, ...]) -> int:
    """Runs the story; archive and tags: the person's own, else the project's sample. Raises StoryFailed with the reason."""
    if archive is not None:
        _check(archive)
    began = time.monotonic()
    kafka.fetch(tell.progress)
    _clear(state)
    folder = state / f"demo-{os.getpid()}"
    stack: Stack | None = None
    try:
        stack = Stack(folder, apart=True)
        stack.start(tell.progress)
        tell.progress(f"everything is up after {time.monotonic() - began:.0f} s")
        Story(stack, folder).run(archive, tags)
    except (StoryFailed, StartFailed) as error:
        _stop(stack)
        raise StoryFailed(f"{error}\n  what each process said is in {folder / 'logs'}") from error
    except (KeyboardInterrupt, BrokenPipeError):  # nobody wants to know any more
        _stop(stack)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        _stop(stack)
        raise
    tell.progress("stopping everything")
    stack.stop()
    shutil.rmtree(folder)
    tell.well(f"The story went as it should, in {time.monotonic() - began:.0f} s. Nothing is left running.")
    return 0


def _check(archive: Path) -> None:
    """Before anything is started: whether there is a zip at all. What is in it the ingress checks."""
    if not archive.exists():
        raise StoryFailed(f"there is no file {archive}")
    if not archive.is_file():
        raise StoryFailed(f"{archive} is no file; FILE should name a .zip of COMTRADE recordings")
    if not zipfile.is_zipfile(archive):
        raise StoryFailed(f"{archive} is no zip archive; FILE should name a .zip of COMTRADE recordings")


def _stop(stack: Stack | None) -> None:
    if stack is not None:
        stack.stop()


def _clear(state: Path) -> None:
    """Removes what demos that failed or were killed have left."""
    for folder in state.glob("demo-*"):
        if not Path(f"/proc/{folder.name.removeprefix('demo-')}").exists():
            shutil.rmtree(folder)

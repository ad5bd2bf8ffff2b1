"""Generate many images, optionally in several processes, with the same result in the same order."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Never, TypeVar

from tqdm import tqdm

from pretrainps.errors import ArgumentError, PretrainPSError

Job = TypeVar("Job")
Made = TypeVar("Made")

_CHUNK = 16
"""Most jobs in one chunk for a worker: few enough for a quick response to an interrupt."""


def generate(
    make: Callable[[Job], Made], jobs: Sequence[Job], *, workers: int = 1, progress: bool = False, unit: str = "scene"
) -> Iterator[Made]:
    """Run jobs and yield their results in order, as soon as they are ready.

    Workers run at most a few chunks ahead, so that a slow consumer does not fill the memory. They end when the iterator is
    closed, on an interrupt, and when this process dies.

    Args:
        make: The function that runs a job. Workers get it by pickle: a function of a module, or a `functools.partial` of one.
        jobs: The jobs, independent of each other.
        workers: Number of processes; 1 runs all jobs in this process. More than 1 needs a script that starts under
            `if __name__ == "__main__":`, as always with multiprocessing.
        progress: Whether to show a progress bar.
        unit: Unit of the progress bar.

    Raises:
        ArgumentError: less than one worker.
    """
    if workers < 1:
        raise ArgumentError(f"workers={workers}: at least 1 process has to do the work.")
    here = workers == 1 or len(jobs) < 2
    made = _in_this_process(make, jobs) if here else _in_workers(make, jobs, workers)
    return _with_bar(made, tqdm(total=len(jobs), unit=unit, disable=not progress))


def _with_bar(made: Generator[Made, None, None], bar: tqdm[Never]) -> Iterator[Made]:
    with closing(made), bar:
        for thing in made:
            yield thing
            bar.update()


def _in_this_process(make: Callable[[Job], Made], jobs: Sequence[Job]) -> Generator[Made, None, None]:
    yield from map(make, jobs)


def _in_workers(make: Callable[[Job], Made], jobs: Sequence[Job], workers: int) -> Generator[Made, None, None]:
    size = min(_CHUNK, -(-len(jobs) // (2 * workers)))
    # a fork of a process with threads, as torch starts them, may hang, so workers are spawned
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    waiting: deque[Future[list[Made]]] = deque()
    try:
        for start in range(0, len(jobs), size):
            waiting.append(pool.submit(_make_all, make, jobs[start : start + size]))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise PretrainPSError(
            "a worker that draws synthetic data died: out of memory, or it could not start. A script that uses workers must "
            'begin its work under `if __name__ == "__main__":`; workers=1 needs no other process.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_all(make: Callable[[Job], Made], jobs: Sequence[Job]) -> list[Made]:
    return [make(job) for job in jobs]


def _prepare_worker() -> None:
    """Leave interrupts to the parent process, which ends its workers; and end when the parent has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)

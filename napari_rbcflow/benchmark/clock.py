"""CPU time of public steps, taken while the whole runs as it always does."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

step_clock = time.perf_counter if sys.platform == "win32" else time.process_time
"""Of one step in a process that does nothing else. Windows counts CPU time in steps of 16 ms: too coarse."""


@contextmanager
def stepwise(
    steps: Mapping[str, tuple[type, str]], clock: Callable[[], float] = step_clock
) -> Iterator[dict[str, float]]:
    """Have each call of a method add its seconds to its step.

    Parameters
    ----------
    steps : mapping of str to (class, str)
        Methods by the step's name.
    clock : callable
        `step_clock` counts what threads of a library did meanwhile (OpenCV's) too, so nothing else may
        run in the process; `time.thread_time` counts the calling thread alone.

    Yields
    ------
    dict of str to float
        Seconds so far, by name; the caller may set them back to 0.
    """
    spent = dict.fromkeys(steps, 0.0)

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(*args: Any, **named: Any) -> Any:
            start = clock()
            try:
                return step(*args, **named)
            finally:
                spent[name] += clock() - start

        return call

    with _replaced({name: (*at, timed(name, getattr(*at))) for name, at in steps.items()}):
        yield spent


@contextmanager
def since_first(owner: type, method: str) -> Iterator[list[Stopwatch]]:
    """Start a stopwatch at the first call of a method; the list is empty until then."""
    started: list[Stopwatch] = []
    plain = getattr(owner, method)

    @functools.wraps(plain)
    def call(*args: Any, **named: Any) -> Any:
        if not started:
            started.append(Stopwatch())
        return plain(*args, **named)

    with _replaced({"": (owner, method, call)}):
        yield started


@contextmanager
def _replaced(methods: Mapping[str, tuple[type, str, Callable[..., Any]]]) -> Iterator[None]:
    plain = [(owner, method, getattr(owner, method)) for owner, method, _ in methods.values()]
    for owner, method, other in methods.values():
        setattr(owner, method, other)
    try:
        yield
    finally:
        for owner, method, own in plain:
            setattr(owner, method, own)


class Stopwatch:
    """CPU seconds of this process, and seconds by the clock, since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall, self._step = time.process_time(), time.perf_counter(), step_clock()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all threads together."""
        return time.process_time() - self._cpu

    @property
    def wall_s(self) -> float:
        """Seconds by the clock."""
        return time.perf_counter() - self._wall

    @property
    def steps_s(self) -> float:
        """Seconds of the clock that `stepwise` uses, to which its steps add up."""
        return step_clock() - self._step

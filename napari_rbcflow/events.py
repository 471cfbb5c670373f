"""What happens in a run, for your own Python: connect a function, to stop a pump or to send a TTL pulse.

>>> from napari_rbcflow import events
>>> @events.stop.connect
... def stop_pump(status, reason): ...

A function that is connected hears every run of this Python: those of the docks in napari, whose runs have a
process of their own, and those of `analyze` and `pipeline.Run`. It may take fewer arguments than the event
has. The last one is always the session's folder, which tells one run from another. A function stays
connected until ``events.stop.disconnect(stop_pump)`` or the end of Python; runs that begin later are heard
too.

**Where it is called.** In a thread of the run's own named ``rbcflow-events``, one function after the other,
never in the thread of a camera or of a window. What touches the viewer belongs into napari's own thread:
decorate it with ``superqt.utils.ensure_main_thread``.

**How late.** A run is looked at 20 times a second, in napari 40 times, so an event comes up to 50 ms after
what it tells, in napari some milliseconds more. A function that takes long makes the later events late, its
own and those of others, but holds up no frame: frames and fractions in between are then left out, judged
tracks are told later (the last 2048 of them), `stop` and `verdict` always come. As this is one Python, a
function that computes for long, instead of waiting for a device, does slow down a run of `analyze` or
`pipeline.Run`.

**What goes wrong.** An error in a function harms neither the run nor other functions. It is logged once a
run, and shown among the run's notes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from psygnal import SignalInstance

from napari_rbcflow.errors import sentence_of
from napari_rbcflow.sentences import say
from napari_rbcflow.types import RunStatus, Verdict

log = logging.getLogger(__name__)


def _log_fault(sentence: str, error: BaseException) -> None:
    log.error("%s", sentence, exc_info=error)


on_fault: ContextVar[Callable[[str, BaseException], None]] = ContextVar("on_fault", default=_log_fault)
"""Who is told that a subscriber failed: the run whose events are emitted in this thread."""


class Event(SignalInstance):
    """One event: a psygnal signal whose subscribers harm neither the run nor each other.

    psygnal leaves out the subscribers behind one that raises, and forgets a bound method as soon as nobody
    else holds its object. Here each subscriber is held, and called in a guard of its own.
    """

    def __init__(self, name: str, *types: type[Any]) -> None:
        super().__init__(types, name=name)
        self._guards: list[tuple[Callable[..., object], Callable[..., None]]] = []

    def connect(self, subscriber: Callable[..., object]) -> Callable[..., object]:  # type: ignore[override]
        """Call `subscriber` at each event from now on; may be used as a decorator.

        Parameters
        ----------
        subscriber : callable
            Takes the event's arguments, or the first of them. What it returns is not used.

        Raises
        ------
        ValueError
            If it needs more arguments than the event has.
        """

        @functools.wraps(subscriber)
        def guard(*args: object) -> None:
            try:
                subscriber(*args)
            except (Exception, SystemExit) as error:
                name = getattr(subscriber, "__qualname__", repr(subscriber))
                why = sentence_of(error)
                sentence = say("pipeline.subscriber-failed", name=name, event=self.name, why=why)
                on_fault.get()(sentence, error)

        super().connect(guard)
        self._guards.append((subscriber, guard))
        return subscriber

    def disconnect(self, subscriber: Callable[..., object] | None = None, missing_ok: bool = True) -> None:
        """Call `subscriber` no more; without one, nobody.

        Raises
        ------
        ValueError
            If it is not connected, unless `missing_ok`.
        """
        if subscriber is None:
            self._guards.clear()
            super().disconnect()
            return
        found = next((pair for pair in self._guards if pair[0] == subscriber), None)
        if found is not None:
            self._guards.remove(found)
            super().disconnect(found[1])
        elif not missing_ok:
            raise ValueError(f"not connected: {subscriber!r}")


frame = Event("frame", int, float, Path)
"""A frame came: ``(index, time_s, folder)``, its place and time on the camera's own clock. Told 40 times a
second at most, and without the picture: `sources.open_frames` reads that from the folder."""

track_judged = Event("track_judged", object, Path)
"""A track was judged: ``(cell, folder)``, the first a `pipeline.JudgedCell`."""

fraction_changed = Event("fraction_changed", object, Path)
"""The fraction changed: ``(figure, folder)``, the first a `session.FractionFigure`. Its interval is the one
that is valid at any moment, and at the end the one that is valid for how the run ended."""

stop = Event("stop", RunStatus, str, Path)
"""The run stops: ``(status, reason, folder)``, as in ``run.json``. Told once, as soon as it is known that no
more frames are wanted or none come. The session is still open, and tracks that wait are still judged."""

verdict = Event("verdict", Verdict, str, Path)
"""The session is closed: ``(verdict, reason, folder)``, as in ``run.json``. Told once, as the last event of a
run. It is the machine's own: a check by eye that follows tells nothing here."""

EVENTS = (frame, track_judged, fraction_changed, stop, verdict)


def subscribed() -> bool:
    """Whether anybody is connected to any event."""
    return any(len(event) for event in EVENTS)

"""The two ways in which a run goes wrong, each with one sentence that says what to do."""

from __future__ import annotations


class RbcflowError(Exception):
    """Base of what is said to a person: one clear sentence, no traceback.

    Attributes
    ----------
    code : str
        What a program knows the kind of it by, also where the sentence alone crosses from one process
        to another; empty where nobody need tell it from others.
    """

    code = ""


class BadInput(RbcflowError):
    """What the user gave cannot be used. Raised before anything is made; commands exit 2."""


class LiveModeOn(BadInput):
    """The running Micro-Manager shows its camera live: somebody must say that this may be ended."""

    code = "live-mode-on"


class RunFailed(RbcflowError):
    """Something broke while running. What was had is kept; commands exit 1."""


def sentence_of(error: BaseException) -> str:
    """Return what a person is told of an error: our own sentence, or the name of what nobody foresaw."""
    return str(error) if isinstance(error, RbcflowError) else f"{type(error).__name__}: {error}"

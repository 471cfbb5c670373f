"""The two ways in which a run goes wrong, each with one sentence that says what to do."""

from __future__ import annotations

from typing import Any, Self

from napari_rbcflow.sentences import say


class RbcflowError(Exception):
    """Base of the errors that a person reads: one clear sentence, no traceback.

    Parameters
    ----------
    key : str
        Of the sentence (`napari_rbcflow.sentences`).
    **values : object
        For its braces.

    Attributes
    ----------
    key : str
        By which a program recognises the error, even from another process.
    """

    def __init__(self, key: str, /, **values: object) -> None:
        super().__init__(say(key, **values))
        self.key = key

    @classmethod
    def told(cls, sentence: str, key: str = "") -> Self:
        """Return an error whose sentence was made elsewhere, such as in another process."""
        error = cls.__new__(cls)
        Exception.__init__(error, sentence)
        error.key = key
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).told, (str(self), self.key)


class BadInput(RbcflowError):
    """What the user gave cannot be used. Raised before anything is created; commands exit 2."""


class LiveModeOn(BadInput):
    """The running Micro-Manager is in Live mode, and nobody said that this may be ended."""

    KEY = "sources.live-mode-on"


class RunFailed(RbcflowError):
    """Something broke during a run. Results so far are kept; commands exit 1."""


def sentence_of(error: BaseException) -> str:
    """Return the sentence of our own errors; of others, their type and text."""
    return str(error) if isinstance(error, RbcflowError) else f"{type(error).__name__}: {error}"

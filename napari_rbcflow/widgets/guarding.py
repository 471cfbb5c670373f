"""A slot that ends in a sentence at worst."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari_rbcflow.errors import RbcflowError, sentence_of

log = logging.getLogger(__name__)


def guarded(slot: Callable[..., None], whose: str, say: Callable[[str], None]) -> Callable[..., None]:
    """Let a slot end in a sentence at worst, never in a traceback window.

    Parameters
    ----------
    slot : callable
    whose : str
        For the log, where the error is none of ours.
    say : callable
        Shows the sentence.
    """

    def call(*given: Any) -> None:
        try:
            slot(*given)
        except Exception as error:
            if isinstance(error, RbcflowError):
                log.warning("%s", error)
            else:
                log.error("%s", whose, exc_info=error)
            say(sentence_of(error))

    return call

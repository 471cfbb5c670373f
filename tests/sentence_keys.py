"""What a test of a sentence tests: its key, and the class of an error, not the words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from string import Formatter

import pytest

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.sentences import all_sentences

SENTENCES = all_sentences()


def is_said(key: str, text: str, **values: object) -> bool:
    """Say whether a text holds the sentence under a key; values that are not given may be anything."""
    pattern = ""
    for literal, name, spec, _ in Formatter().parse(SENTENCES[key]):
        pattern += re.escape(literal)
        if name is None:
            continue
        if name in values and "|" not in (spec or ""):
            pattern += re.escape(format(values[name], spec or ""))
        elif name in values:
            one, many = (spec or "").split("|")
            pattern += re.escape((one if values[name] == 1 else many).replace("#", str(values[name])))
        else:
            pattern += ".*"
    return re.search(pattern, text, re.DOTALL) is not None


def any_said(key: str, texts: Iterable[str], **values: object) -> bool:
    """Say whether any of some texts holds the sentence under a key."""
    return any(is_said(key, text, **values) for text in texts)


@contextmanager
def refused(error: type[RbcflowError], key: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    assert caught.value.key == key

"""What a test of an error tests: its class and its key, not its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napari_rbcflow.errors import RbcflowError


@contextmanager
def refused(error: type[RbcflowError], key: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    assert caught.value.key == key

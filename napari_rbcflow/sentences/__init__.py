"""Every sentence that a person reads, once, under a key: errors, warnings, labels, tooltips, help.

The sentences lie in the TOML files beside this one, one file for each part of the program. The key
``ring.disk-full`` is the entry ``disk-full`` of ``ring.toml``. ``python -m napari_rbcflow.sentences`` prints
all of them, to be read aloud.

A sentence holds its values in braces, as `str.format` does: ``{path}``, ``{seconds:.1f}``. Where the wording
depends on a number, both wordings stand in the braces: ``{cells:1 cell was|# cells were}``. A setting is
named in backticks as Python calls it, ```stop_reliable```; `name_settings` turns that into what the user
sees, ``--stop-reliable`` on the command line or the label of a field in a form.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from string import Formatter

_FOLDER = Path(__file__).parent
_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")


def say(key: str, /, **values: object) -> str:
    """Return the sentence under a key, with its values filled in.

    Parameters
    ----------
    key : str
        ``file.entry``, such as ``ring.disk-full``.
    **values : object
        What stands in braces in the sentence.

    Raises
    ------
    KeyError
        Where there is no such sentence, or a value that it holds is not given.
    """
    text = _file_of(key)[key.partition(".")[2]]
    return _FORMAT.vformat(text, (), values) if "{" in text or "}" in text else text


def all_sentences() -> dict[str, str]:
    """Return every sentence by its key, values still in braces, in the order of the files."""
    return {
        f"{path.stem}.{entry}": text
        for path in sorted(_FOLDER.glob("*.toml"))
        for entry, text in _read(path.stem).items()
    }


def fields(text: str) -> frozenset[str]:
    """Return the names of the values that a sentence holds."""
    return frozenset(re.split(r"[.\[]", name)[0] for _, name, _, _ in _FORMAT.parse(text) if name)


def name_settings(text: str, called: Callable[[str], str]) -> str:
    """Replace each setting in backticks by what `called` says of its name in Python (``stop_reliable``)."""
    return _SETTING.sub(lambda found: called(found[1]), text)


class _Sentence(Formatter):
    """`str.format`, and the two wordings of a number."""

    def format_field(self, value: object, format_spec: str) -> str:
        if "|" not in format_spec:
            return str(super().format_field(value, format_spec))
        one, many = format_spec.split("|")
        return (one if value == 1 else many).replace("#", str(value))


_FORMAT = _Sentence()


def _file_of(key: str) -> dict[str, str]:
    return _read(key.partition(".")[0])


@cache
def _read(name: str) -> dict[str, str]:
    try:
        return tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))
    except FileNotFoundError:
        raise KeyError(f"there is no file of sentences {name}.toml") from None

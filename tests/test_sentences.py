"""Every sentence lives once, under a key that the code uses with the values that it holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

import napari_rbcflow
from napari_rbcflow.cli import cli
from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sentences import all_sentences, fields, name_settings, say

PACKAGE = Path(napari_rbcflow.__file__).parent
SENTENCES = all_sentences()
FILES = {key.partition(".")[0] for key in SENTENCES}
KEY = re.compile(
    rf"(?:{'|'.join(sorted(FILES))})\.(?!(?:zarr|csv|json|log|html|png|md|toml)$)[a-z0-9][a-z0-9-]*"
)


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8"))


def templates():
    for path in sorted(PACKAGE.rglob("*.j2")):
        yield path.relative_to(PACKAGE), Environment().parse(path.read_text("utf-8"))


def test_every_key_in_the_code_has_its_sentence_with_the_values_that_are_given():
    wrong = []
    for path, tree in trees():
        starts: set[int] = set()  # of f-strings: some sentence must begin like that
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                starts.add(id(node.values[0]))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.fullmatch(node.value):
                begins = id(node) in starts and any(key.startswith(node.value) for key in SENTENCES)
                if not begins and node.value not in SENTENCES:
                    wrong.append(f"{path}:{node.lineno}: no sentence {node.value}")
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            key, given = node.args[0].value, {keyword.arg for keyword in node.keywords}
            if (
                key in SENTENCES
                and len(node.args) == 1
                and None not in given
                and given != fields(SENTENCES[key])
            ):
                wrong.append(f"{path}:{node.lineno}: {key} holds {set(fields(SENTENCES[key]))}, not {given}")
    for path, tree in templates():
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "say":
                given, first = {keyword.key for keyword in call.kwargs}, call.args[0]
                if isinstance(first, nodes.Const) and given != fields(SENTENCES.get(first.value, "{none}")):
                    wrong.append(f"{path}:{call.lineno}: {first.value} does not hold {given}")
    assert not wrong, "\n".join(wrong)


def test_every_sentence_is_said_somewhere():
    said, starts = set(), set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                starts.add(node.values[0].value)
    for _, tree in templates():
        said |= {const.value for const in tree.find_all(nodes.Const)}
    starts = {
        start for start in starts if start.partition(".")[0] in FILES and len(start.partition(".")[2]) > 2
    }
    unsaid = [key for key in SENTENCES if key not in said and not key.startswith(tuple(starts))]
    assert not unsaid, "\n".join(unsaid)


def test_a_number_chooses_its_wording(monkeypatch):
    from napari_rbcflow import sentences

    monkeypatch.setattr(
        sentences, "_read", lambda name: {"few": "Only {cells:1 cell was|# cells were} counted."}
    )
    assert say("any.few", cells=1) == "Only 1 cell was counted."
    assert say("any.few", cells=12) == "Only 12 cells were counted."


def test_a_setting_is_called_as_its_user_knows_it():
    text = "Give the folder as `mm_path`."
    assert name_settings(text, lambda name: "--" + name.replace("_", "-")) == "Give the folder as --mm-path."


def test_a_setting_in_backticks_is_an_option_of_a_command_or_an_argument_in_python():
    known = {option.name for command in cli.commands.values() for option in command.params}
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
    unknown = [
        f"{key}: `{name}`"
        for key, text in SENTENCES.items()
        for name in re.findall("`([a-z][a-z0-9_]*)`", text)
        if name not in known
    ]
    assert not unknown, "\n".join(unknown)


def test_an_error_keeps_its_key_and_its_sentence_from_one_process_to_another():
    import pickle

    error = pickle.loads(pickle.dumps(BadInput("ring.disk-full", folder="/data")))
    assert isinstance(error, BadInput)
    assert (error.key, str(error)) == ("ring.disk-full", say("ring.disk-full", folder="/data"))
    assert RbcflowError.told("as the other process said").key == ""


def test_no_sentence_without_a_key():
    with pytest.raises(KeyError):
        say("ring.no-such-sentence")

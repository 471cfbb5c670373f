"""Every sentence lives once, under a key that the code uses with the values that it holds."""

from __future__ import annotations

import ast
import re
from functools import cache
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


@cache
def trees():
    return [
        (path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


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


def test_no_sentence_stands_under_two_keys():
    keys = {}
    for key, text in SENTENCES.items():
        if len(text.split()) >= 4:
            keys.setdefault(re.sub(r"{\w+}", "{}", text), []).append(key)
    assert [twins for twins in keys.values() if len(twins) > 1] == []


# What is no sentence for a person, by file: how many such texts it holds, and what they are.
NO_SENTENCES = {
    "benchmark/parts.py": (2, "names of figures in speed.json"),
    "benchmark/suite.py": (4, "names of figures in speed.json"),
    "classification/training/model_card.py": (8, "names of figures in a model card"),
    "classification/training/train.py": (1, "the name of a figure in a model card"),
    "classification/two_stage.py": (1, "the name of a figure in a model card"),
    "classification/weight_files.py": (5, "names of figures in a model card"),
    "pipeline/client.py": (2, "logged with the error of another process, to find a fault"),
    "pipeline/run.py": (1, "logged with an error, to find a fault"),
    "pipeline/worker.py": (3, "logged in the worker's process, to find a fault"),
    "sentences/__init__.py": (1, "where there is no file of sentences"),
    "sources/remote_child.py": (1, "logged with an error of Micro-Manager's, to find a fault"),
    "trend/plot.py": (2, "names of fonts"),
}
FOR_DEVELOPERS = {"debug", "exception", "RuntimeError", "AssertionError", "TypeError", "AttributeError"}
WORD = re.compile(r"[\"'(]?[A-Za-z][A-Za-z'-]*[\"').,:;!?]*")
STYLE = re.compile(r"[a-z-]+: [^;]+;")


def called(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def not_for_people(tree):
    """The nodes of docstrings, of what is logged to find a fault, and of errors for developers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        elif isinstance(node, ast.Assert) or (
            isinstance(node, ast.Call) and called(node.func) in FOR_DEVELOPERS
        ):
            found |= {id(inner) for inner in ast.walk(node)}
    return found


def literals(tree):
    """Every text with its line; an f-string whole, its values as dots."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            text = "".join(
                str(getattr(value, "value", "")) if isinstance(value, ast.Constant) else "…"
                for value in node.values
            )
            yield node, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node, node.value


def test_no_sentence_is_left_in_the_code():
    left = {}
    for path, tree in trees():
        skipped = not_for_people(tree)
        for node, text in literals(tree):
            words = sum(WORD.fullmatch(word) is not None for word in text.split())
            if words >= 4 and id(node) not in skipped and not STYLE.search(text):
                left.setdefault(path.as_posix(), []).append(f"{path}:{node.lineno}: {text[:90]}")
    wrong = [
        text for path, texts in left.items() if len(texts) > NO_SENTENCES.get(path, (0,))[0] for text in texts
    ]
    assert not wrong, "\n".join(wrong)
    assert {path: len(texts) for path, texts in left.items()} == {
        path: number for path, (number, _) in NO_SENTENCES.items()
    }


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

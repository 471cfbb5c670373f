"""The session folder: written, read, verified, reported."""

from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.schema import Account, FractionFigure
from napari_rbcflow.session.verify import Verdict, verify
from napari_rbcflow.session.writer import SessionWriter

__all__ = [
    "Account",
    "FractionFigure",
    "Session",
    "SessionWriter",
    "Verdict",
    "open_session",
    "verify",
]

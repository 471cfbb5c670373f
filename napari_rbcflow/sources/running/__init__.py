"""A Micro-Manager that is already open, over pycromanager's ZMQ server.

If that Micro-Manager dies, a call to it hangs for ever, and so would the exit of the program that called.
So the calls are made in a process of their own (`child`), which can be killed; frames come from it over a
pipe (`stream`) to the source that the run reads (`source`).
"""

from napari_rbcflow.sources.running.source import RunningMicroManager

__all__ = ["RunningMicroManager"]

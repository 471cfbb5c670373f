"""``python -m napari_rbcflow.commands``: the command `rbcflow`."""

from napari_rbcflow.commands import main

main()

"""The process beside a running Micro-Manager, which waits three seconds here for an answer and not twenty."""

from napari_rbcflow.sources import remote_child

if __name__ == "__main__":
    remote_child._TO_UNDERSTAND_S = 3.0
    remote_child.main()

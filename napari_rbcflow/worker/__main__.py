"""`python -m napari_rbcflow.worker`: started by `client.Worker`, of no use by hand."""

from napari_rbcflow.worker.serving import main

if __name__ == "__main__":
    main()

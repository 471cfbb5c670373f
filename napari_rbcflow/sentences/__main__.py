"""Print every sentence under its key, to be read aloud: ``python -m napari_rbcflow.sentences [FILE]``."""

import sys

from napari_rbcflow.sentences import all_sentences


def main() -> None:
    """Print all sentences, or those of the files that are named."""
    wanted = sys.argv[1:]
    for key, text in all_sentences().items():
        if not wanted or key.partition(".")[0] in wanted:
            print(f"{key}\n    {text}")


if __name__ == "__main__":
    main()

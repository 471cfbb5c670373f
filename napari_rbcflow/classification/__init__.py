"""From a finished track to a label: sampling, networks, two stages; their training and evaluation."""

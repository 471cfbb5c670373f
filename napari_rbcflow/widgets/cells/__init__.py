"""Judged cells, as a strip and one by one, with their labels to be changed."""

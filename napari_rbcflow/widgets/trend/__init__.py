"""A patient's sessions over the dates, in a dock of their own."""

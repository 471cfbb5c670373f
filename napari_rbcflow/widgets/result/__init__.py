"""The number, and all that a person must know beside it."""

"""The session folder: written, read, verified, reported."""

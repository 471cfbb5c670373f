"""The version, where the build reads it and every layer may."""

__version__ = "0.1.0"

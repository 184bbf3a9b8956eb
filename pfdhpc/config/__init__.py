"""The input file: its schema, reading it, and what may change between restarts."""

from .load import dump, load, parse
from .schema import Config

__all__ = ["Config", "dump", "load", "parse"]

"""Frames, labels and their provenance: the vocabulary every other part shares."""

from .frame import Frame, Label, Labelling, Origin, Record, label_id

__all__ = ["Frame", "Label", "Labelling", "Origin", "Record", "label_id"]

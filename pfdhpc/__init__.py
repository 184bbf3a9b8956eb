"""Fine-tune and distil universal atomic models inside one MPI batch job."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """``select_frames`` loads what it needs when it is first asked for."""
    if name != "select_frames":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .selection.standalone import select_frames

    return select_frames

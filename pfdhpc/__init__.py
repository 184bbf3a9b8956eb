"""Fine-tune and distil universal atomic models inside one MPI batch job."""

__version__ = "0.1.0"

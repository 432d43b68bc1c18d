"""Every exception the library raises on purpose, in one tree.

    NumsError
    ├── ShapeError        (ValueError)     shapes that do not fit one another
    ├── DTypeError        (TypeError)      dtypes an operation does not take
    ├── GridError         (ValueError)     chunks that do not fit an array
    ├── ConfigError       (ValueError)     unknown settings or values out of range
    ├── UnknownSizeError  (ValueError)     a size that depends on data not yet computed
    ├── ImplicitComputeError (RuntimeError) computing where settings forbid it
    ├── MemoryBudgetError (MemoryError)    work that cannot fit its memory budget
    ├── ModelFileError    (ValueError)     a model file that is damaged, incomplete or of an unknown kind
    ├── DataFileError     (ValueError)     a file of tokens that is truncated or holds something else
    ├── CheckpointError   (ValueError)     a checkpoint that is incomplete or of another model
    ├── TrainingError     (RuntimeError)   training cannot go on from the state it is in
    ├── NoDerivativeError (NotImplementedError) an operation has no derivative, and one was asked for
    ├── SpillError        (OSError)        the spill folder is full or not writable
    ├── KernelError       (RuntimeError)   a kernel failed while a plan ran
    ├── WorkerLostError   (RuntimeError)   a worker or node went away and could not be replaced
    └── MissingBackendError (ImportError)  an optional package is not installed

Where NumPy itself has the error (broadcasting, an axis out of range, an index out of bounds) NumPy's class and
words are used, so that code written for NumPy keeps working.
"""

from __future__ import annotations


class NumsError(Exception):
    """Base of all errors raised by nums_core."""


class ShapeError(NumsError, ValueError):
    """Shapes that do not fit one another."""


class DTypeError(NumsError, TypeError):
    """A dtype the operation does not take."""


class GridError(NumsError, ValueError):
    """Chunks that do not fit the array."""


class ConfigError(NumsError, ValueError):
    """An unknown setting, or a value out of range."""


class UnknownSizeError(NumsError, ValueError):
    """A size that depends on data which has not been computed."""


class ImplicitComputeError(NumsError, RuntimeError):
    """Python asked for a value while `config.implicit_compute` is off."""


class MemoryBudgetError(NumsError, MemoryError):
    """Work that cannot fit into its memory budget, even when everything else is spilled."""


class ModelFileError(NumsError, ValueError):
    """A model file that is damaged, incomplete, hostile or of an unknown kind; names the file and the tensor or key."""


class DataFileError(NumsError, ValueError):
    """A file of tokens that is missing, truncated or holds something else; names the file."""


class CheckpointError(NumsError, ValueError):
    """A checkpoint that is incomplete, or of other names, shapes or dtypes than asked for; lists them."""


class TrainingError(NumsError, RuntimeError):
    """Training cannot go on from the state it is in; says what to restore or change."""


class NoDerivativeError(NumsError, NotImplementedError):
    """The derivative of an operation that has none; says why, and where the operation was built."""


class SpillError(NumsError, OSError):
    """The spill folder is full or not writable."""


class KernelError(NumsError, RuntimeError):
    """A kernel failed while a plan ran; names the user's line that built the operation."""


class WorkerLostError(NumsError, RuntimeError):
    """A worker went away and what it held could not be rebuilt."""


class MissingBackendError(NumsError, ImportError):
    """An optional package is needed and not installed."""

"""The exceptions striate raises, one class per cause."""


class StriateError(Exception):
    """Any error that striate raises on purpose."""


class ShapeError(StriateError, ValueError):
    """A tensor's shape or rank does not fit what reads it."""


class DTypeError(StriateError, TypeError):
    """An element type does not fit, or a conversion would lose meaning."""


class GraphError(StriateError, ValueError):
    """A graph is not well formed: an unknown value, a taken name, a bad attribute."""


class UnknownLayerError(StriateError, KeyError):
    """A layer was asked for that the model does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class ModelFormatError(StriateError, ValueError):
    """A model file is refused.

    Parameters
    ----------
    message : str
        What was found and what was wanted.
    code : str
        The cause, one word of the table in ``docs/format.md``; stable between versions.
    path : str
        The file, or ``"<bytes>"``.
    """

    def __init__(self, message: str, *, code: str, path: str = "<bytes>") -> None:
        super().__init__(f"{path}: {message} [{code}]")
        self.code = code
        self.path = path


class ImageError(StriateError, ValueError):
    """A picture cannot be read, or the model does not say how to prepare one."""


class UnsupportedModelError(StriateError, ValueError):
    """A source model uses operators or settings that cannot be converted."""


class MissingExtraError(StriateError, ImportError):
    """An optional dependency is not installed; the message gives the pip line."""


class DeadlineError(StriateError, TimeoutError):
    """A run was not done in time.

    Parameters
    ----------
    message : str
        What was allowed and how far the run came.
    layer : str
        The layer that would have been next.
    """

    def __init__(self, message: str, *, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


class NotFiniteError(StriateError, ArithmeticError):
    """A layer made NaN or infinity of finite numbers.

    Parameters
    ----------
    message : str
        What was found, and where.
    layer : str
        The value it was found in: a layer's, or an input.
    """

    def __init__(self, message: str, *, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


class SettingError(StriateError, ValueError):
    """An argument or environment variable has a value that makes no sense."""

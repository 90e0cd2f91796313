"""The ways to compute a convolution, each bound to its kernel; one a file."""

from .depthwise import depthwise
from .matrix_product import matrix_product
from .moves import Moves
from .winograd import suits_winograd, winograd, winograd_halo

__all__ = [
    "Moves",
    "depthwise",
    "matrix_product",
    "suits_winograd",
    "winograd",
    "winograd_halo",
]

"""The ways to compute a convolution, each bound to its kernel; one a file."""

from .depthwise import depthwise
from .matrix_product import matrix_product
from .moves import Moves
from .winograd import winograd, winograd_halo, winograd_tile

__all__ = [
    "Moves",
    "depthwise",
    "matrix_product",
    "winograd",
    "winograd_halo",
    "winograd_tile",
]

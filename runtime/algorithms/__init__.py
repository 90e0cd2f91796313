"""The ways to compute a convolution, each bound to its kernel; one a file."""

from .depthwise import depthwise, suits_depthwise
from .matrix_product import matrix_product
from .moves import Moves
from .narrow import narrow, suits_narrow
from .winograd import winograd, winograd_halo, winograd_others, winograd_tile
from .winograd_row import row_reach, row_tile, winograd_row

__all__ = [
    "Moves",
    "depthwise",
    "matrix_product",
    "narrow",
    "row_reach",
    "row_tile",
    "suits_depthwise",
    "suits_narrow",
    "winograd",
    "winograd_halo",
    "winograd_others",
    "winograd_row",
    "winograd_tile",
]

"""The ways to compute a convolution, each bound to its kernel; one a file."""

from .depthwise import depthwise, suits_depthwise
from .matrix_product import matrix_product
from .moves import Moves
from .narrow import narrow, suits_narrow
from .winograd import (
    WINOGRAD_SIZES,
    winograd,
    winograd_halo,
    winograd_others,
    winograd_tile,
)

__all__ = [
    "WINOGRAD_SIZES",
    "Moves",
    "depthwise",
    "matrix_product",
    "narrow",
    "suits_depthwise",
    "suits_narrow",
    "winograd",
    "winograd_halo",
    "winograd_others",
    "winograd_tile",
]

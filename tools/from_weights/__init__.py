"""Weights alone, put into an architecture of `striate.models.architectures`.

``safetensors`` and ``pickled`` read the files, without PyTorch and without executing
anything of them; ``importer`` finds each layer's weights by torchvision's names.
"""

from striate.tools.from_weights.importer import from_weights, operators

__all__ = ["from_weights", "operators"]

"""Darknet networks to graphs: a configuration, and a stream of weights.

`config` reads the sections of the configuration and `weights` the stream; `sections`
says what each section becomes, `heads` how a detector's last ones become boxes;
`importer` walks them.
"""

from striate.tools.from_darknet.importer import from_darknet
from striate.tools.from_darknet.sections import SECTIONS

__all__ = ["from_darknet", "operators"]

operators = SECTIONS.operators

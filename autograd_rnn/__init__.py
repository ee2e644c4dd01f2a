"""Write the recurrence; get everything else. See `Cell`."""

from .cell import Cell
from .errors import CellError
from .graph import Primitive
from .zoo import zoo

__all__ = ["Cell", "CellError", "Primitive", "zoo"]
__version__ = "0.1.0"

"""Write the recurrence; get everything else. See `Cell`."""

from .cell import Cell
from .comparison import compare
from .errors import CellError
from .graph import Primitive
from .trace import Trace
from .zoo import zoo

__all__ = ["Cell", "CellError", "Primitive", "Trace", "compare", "zoo"]
__version__ = "0.1.0"

"""The tasks that made recurrent networks famous: `tasks["adding"]`, `list(tasks)`.

    task = tasks["adding"]
    model = task.model(zoo["lstm"])                                  # a Cell: read-out and loss around the cell
    data = task.data(batch=32, length=0, seed=0, T=100)              # what is learnt from, judged, tested

`bench` runs a task for cells and seeds and keeps each result; `results` reads them.
"""

from . import arithmetic, files, grammars, lags, latent, series, translation
from .task import Data, Task, Tasks

FAMILIES = (arithmetic, lags, grammars, series, files, translation, latent)
tasks = Tasks(*(family.TASKS for family in FAMILIES))

__all__ = ["Data", "Task", "Tasks", "tasks"]

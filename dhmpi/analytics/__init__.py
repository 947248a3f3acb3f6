"""How a run went: its evaluations in columns, where its time went, what mattered.

``python -m dhmpi.analytics`` shows it; `load` gives it to programs and notebooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dhmpi.analytics.study import Study

__all__ = ["load"]


def load(path: str | Path) -> Study:
    """Return what a run directory, or a results.csv of dhmpi or DeepHyper, says; or what was exported to Parquet.

    Its ``evaluations``, ``events`` and ``utilization()`` are pandas data frames.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    DhmpiError
        If there is nothing to read.

    Examples
    --------
    >>> study = load("dhmpi-runs/default/ambs_8212761d")  # doctest: +SKIP
    >>> study.objective.max(), study.usage().utilisation  # doctest: +SKIP
    (0.9906666666666667, 0.971)
    >>> study.evaluations.plot.scatter("end", "objective")  # doctest: +SKIP
    """
    from pathlib import Path

    from dhmpi.analytics.study import load as load_

    return load_(Path(path))

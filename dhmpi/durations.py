"""How long simulated evaluations take: drawn from a distribution, or from those of a run.  Start at `parse`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dhmpi.errors import OptionError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Durations:
    """A distribution of seconds.

    Attributes
    ----------
    words : str
        What it is.
    mean : float
    draw : callable
        Generator -> seconds, never negative.
    """

    words: str
    mean: float
    draw: Callable[[np.random.Generator], float]


FORMS = {
    "constant": "SECONDS",
    "uniform": "LEAST,MOST",
    "normal": "MEAN,DEVIATION (none is negative)",
    "lognormal": "MEDIAN,SIGMA (SIGMA of the logarithm)",
    "exponential": "MEAN",
}
HELP = "; ".join(f"{name}:{form}" for name, form in FORMS.items())


def parse(text: str) -> Durations:
    """Return the durations that a text asks for: a distribution, or the path of a run.

    Raises
    ------
    DhmpiError
        If it is neither.
    """
    name, colon, numbers = text.partition(":")
    if not colon or name not in FORMS:
        if Path(text).exists():
            return of_run(Path(text))
        raise OptionError(
            f"--duration {text!r} is no distribution ({HELP}), and there is no run directory or results.csv of that "
            f"name"
        )
    values = [_number(text, part) for part in numbers.split(",")]
    if len(values) != FORMS[name].count(",") + 1:
        raise OptionError(f"--duration {text!r}: write {name}:{FORMS[name]}")
    if name == "uniform" and values[0] > values[1]:
        raise OptionError(f"--duration {text!r}: the least is more than the most")
    found = _MAKERS[name](*values)
    if not 0 < found.mean < math.inf:
        raise OptionError(f"--duration {text!r}: evaluations must take more than no time, and less than for ever")
    return found


def of_run(path: Path) -> Durations:
    """Return the durations that the evaluations of a run had, each as likely.

    Parameters
    ----------
    path : Path
        A run directory, a file of its journal, or a results.csv.

    Raises
    ------
    DhmpiError
        If it cannot be read, or says nothing of durations.
    """
    from dhmpi.analytics.study import load

    if path.suffix == ".jsonl" and path.parent.name == "journal":
        path = path.parent.parent
    study = load(path)
    seconds = study.elapsed
    if not (seconds > 0).any():  # DeepHyper's: when each was submitted, and when its outcome was seen
        import numpy as np

        ends, begins = (
            np.array([_time(metrics.get(f"timestamp_{what}")) for metrics in study.metrics])
            for what in ("gather", "submit")
        )
        seconds = ends - begins
    known: Sequence[float] = seconds[seconds > 0].tolist()
    if not known:
        raise OptionError(f"--duration {path} does not say how long evaluations took")
    return Durations(
        f"those of {len(known)} evaluations of {path}",
        math.fsum(known) / len(known),
        lambda rng: known[int(rng.integers(len(known)))],
    )


def _time(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _number(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise OptionError(f"--duration {text!r}: {part!r} is no number of seconds >= 0")
    return value


def _constant(seconds: float) -> Durations:
    return Durations(f"{seconds:g} s", seconds, lambda rng: seconds)


def _uniform(least: float, most: float) -> Durations:
    return Durations(f"{least:g} to {most:g} s", (least + most) / 2, lambda rng: float(rng.uniform(least, most)))


def _normal(mean: float, deviation: float) -> Durations:
    def draw(rng: np.random.Generator) -> float:
        return max(0.0, float(rng.normal(mean, deviation)))

    # The mean of what is cut off at zero.
    z = mean / deviation if deviation else math.inf
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) if z < 40 else 0.0
    cut = mean * (1 + math.erf(z / math.sqrt(2))) / 2 + deviation * density
    return Durations(f"normal, mean {mean:g} s, deviation {deviation:g} s", cut, draw)


def _lognormal(median: float, sigma: float) -> Durations:
    mu = math.log(median) if median else -math.inf
    mean = median * math.exp(min(sigma * sigma / 2, 700.0))
    return Durations(
        f"lognormal, median {median:g} s, mean {mean:.3g} s", mean, lambda rng: float(rng.lognormal(mu, sigma))
    )


def _exponential(mean: float) -> Durations:
    return Durations(f"exponential, mean {mean:g} s", mean, lambda rng: float(rng.exponential(mean)))


_MAKERS: dict[str, Callable[..., Durations]] = {
    "constant": _constant,
    "uniform": _uniform,
    "normal": _normal,
    "lognormal": _lognormal,
    "exponential": _exponential,
}

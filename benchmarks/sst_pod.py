"""What networks of the POD-LSTM space are worth beside ridge regression: ``python -m benchmarks.sst_pod``.

    DHMPI_SST_POD=DIRECTORY python -m benchmarks.sst_pod
    DHMPI_SST_POD=DIRECTORY python -m benchmarks.sst_pod "[1,0,0,0,0,0,0,0,0,0,0,0,0,0]" --repeat 5

Without architectures this takes seconds.  Each one given is trained with the problem's own data and post-training
settings, once per seed, and judged on the chronological test, which neither training nor stopping looks at.  R2 by
both definitions: "global" counts outputs by their variance, in units of the range of the weeks that train; "mean" is
the plain mean over the 40 outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import Ridge

from dhmpi.benchmark.nas.split import Pair
from dhmpi.benchmark.nas.sst_pod_lstm import DIRECTORY, VALIDATION_WEEKS, WINDOW, Problem, load_data, series, windows
from dhmpi.errors import DhmpiError
from dhmpi.nas import callbacks, training
from dhmpi.nas.metrics import r2, r2_global

ALPHAS = (0.03, 0.1, 0.3)
console = Console(width=110)


def persistence(X: np.ndarray) -> np.ndarray:
    """Return the newest week, eight times."""
    return np.repeat(X[:, :1], WINDOW, axis=1)


def ridge(alpha: float, train: Pair, X: np.ndarray, n_weeks: int = WINDOW) -> np.ndarray:
    """Return what ridge regression foretells from the newest weeks of windows."""
    flat, flat_y = train[0][:, :n_weeks].reshape(len(train[0]), -1), train[1].reshape(len(train[1]), -1)
    model = Ridge(alpha).fit(flat, flat_y)
    return model.predict(X[:, :n_weeks].reshape(len(X), -1)).reshape(X.shape)


def network(arch: Sequence[int], seed: int) -> tuple[np.ndarray, int]:
    """Return what a network foretells after post-training, and for how many epochs it was trained."""
    data, post = Problem.data, Problem.post_training_settings
    settings = dataclasses.replace(Problem.settings({}), num_epochs=post.num_epochs, callbacks=post.callbacks)
    model = training.build(Problem, arch, seed, settings)
    judge = training.Judge(Problem, data, settings)
    history: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        training.fit(
            model,
            data.train,
            settings,
            seed,
            history,
            callbacks.make(settings.callbacks, Path(scratch)),
            lambda: judge(model),
            augmentation=Problem.augmentation,
        )
    assert data.test is not None  # of the real series
    told = data.restore(training.predict(model, data.test)[1])[0]
    return told, len(history["loss"])


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sst_pod", description=__doc__.splitlines()[0])
    parser.add_argument("arch", nargs="*", type=json.loads, help="architectures, as in the arch_seq of results.csv")
    parser.add_argument("--repeat", type=int, default=3, help="networks of each architecture, with seeds 0, 1, ...")
    arguments = parser.parse_args(words)

    train, valid, (X, y) = load_data()
    known, _ = series()
    low, high = (extreme(known[:-VALIDATION_WEEKS], axis=0) for extreme in (np.min, np.max))
    everything = windows((known - low) / (high - low))
    directory = os.environ.get(DIRECTORY)
    source = f"the series in {directory}" if directory else f"a synthetic series ({DIRECTORY} is not set)"
    table = Table("foretold by", "weeks to train", "R2 global", "R2 mean", title=f"{len(X)} windows of {source}")

    def add(name: str, weeks: str, *told: np.ndarray) -> None:
        scores = [np.array([metric(y, p) for p in told]) for metric in (r2_global, r2)]
        spread = [f" ± {score.std(ddof=1):.4f}" if len(told) > 1 else "" for score in scores]
        table.add_row(name, weeks, *(f"{score.mean():.4f}{more}" for score, more in zip(scores, spread)))

    first = len(known) - VALIDATION_WEEKS
    add("persistence", "none", persistence(X))
    for alpha in ALPHAS:
        add(f"ridge, alpha {alpha}", f"{first}", ridge(alpha, train, X))
        add(f"ridge, alpha {alpha}", f"{len(known)}", ridge(alpha, everything, X))
    add(f"ridge on three weeks, alpha {ALPHAS[1]}", f"{len(known)}", ridge(ALPHAS[1], everything, X, 3))
    found = []
    for arch in arguments.arch:
        trained = [network(arch, seed) for seed in range(arguments.repeat)]
        told, epochs = zip(*trained)
        found += told
        add(f"{list(arch)}, {np.mean(epochs):.0f} epochs", f"{first}", *told)
        if len(told) > 1:
            add(f"  mean of {len(told)} networks", f"{first}", np.mean(told, axis=0))
    if len(arguments.arch) > 1:
        add(f"mean of all {len(found)} networks", f"{first}", np.mean(found, axis=0))
    console.print(table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DhmpiError as error:
        sys.exit(f"benchmarks.sst_pod: error: {error}")

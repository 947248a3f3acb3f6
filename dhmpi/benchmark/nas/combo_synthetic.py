"""How cancer cells respond to two drugs: **synthetic** data for the three-input space of the Combo benchmark.

Inputs are the expression of a cell line's genes and descriptors of two drugs, a twentieth as many as Combo has; both
drugs pass through one sub-network, the same layers and weights, since they can be exchanged.  The space is that of the
small Combo search: twelve nodes of 13 options and one choice among nine skip connections, 2.1e14 architectures, with
narrower layers.  No cell and no drug was measured.  An evaluation takes a few seconds.

References
----------
Balaprakash et al. (2019), Scalable Reinforcement-Learning-Based Neural Architecture Search for Cancer Deep Learning
Research, SC19.
Xia et al. (2018), Predicting tumor cell line response to drug pairs with deep learning, BMC Bioinformatics 19.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhmpi.benchmark.nas.split import split
from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L
from dhmpi.nas.preprocessing import stdscaler

__all__ = ["Problem", "combo", "load_data"]

N_GENES, N_DESCRIPTORS = 47, 191
N_CELLS, N_DRUGS = 60, 100
N_LATENT = 6
INPUT_SHAPES = ((N_GENES,), (N_DESCRIPTORS,), (N_DESCRIPTORS,))

Pairs = tuple[list[np.ndarray], np.ndarray]
"""Cells, first and second drugs; and the growth, in a column."""


def load_data(n_samples: int = 4000, seed: int = 0) -> tuple[Pairs, Pairs, Pairs]:
    """Return cells and pairs of drugs, and how far the cells grew.

    Cells and drugs have a few hidden properties, which genes and descriptors show with noise.  A drug works through an
    S-shaped response to how well it fits the cell; two that resemble each other add little.
    """
    rng = np.random.default_rng(seed)
    cells, drugs = rng.normal(size=(N_CELLS, N_LATENT)), rng.normal(size=(N_DRUGS, N_LATENT))
    genes = _shown(cells, N_GENES, rng)
    descriptors = _shown(drugs, N_DESCRIPTORS, rng)
    chosen = rng.choice(N_CELLS * N_DRUGS * (N_DRUGS - 1), n_samples, replace=False)  # no triple twice
    cell, pair = np.divmod(chosen, N_DRUGS * (N_DRUGS - 1))
    first, second = np.divmod(pair, N_DRUGS - 1)
    second = second + (second >= first)

    def effect(drug: np.ndarray) -> np.ndarray:
        fit = (cells[cell] * drugs[drug]).sum(axis=1) / N_LATENT**0.5
        return 1 / (1 + np.exp(-2 * fit))

    likeness = (drugs[first] * drugs[second]).sum(axis=1) / N_LATENT
    together = effect(first) + effect(second) - (0.3 + 0.5 * np.tanh(likeness)) * effect(first) * effect(second)
    growth = 1 - together + 0.05 * rng.normal(size=n_samples)
    parts = split(np.stack([cell, first, second], axis=1), growth[:, np.newaxis], seed)
    train, valid, test = (([genes[i[:, 0]], descriptors[i[:, 1]], descriptors[i[:, 2]]], y) for i, y in parts)
    return train, valid, test


def _shown(latent: np.ndarray, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Return what is measured of hidden properties."""
    mixing = rng.normal(size=(latent.shape[1], n_features)) / latent.shape[1] ** 0.5
    return np.tanh(latent @ mixing) + 0.1 * rng.normal(size=(len(latent), n_features))


def combo(
    input_shape: Sequence[Sequence[int]] = INPUT_SHAPES,
    output_shape: Sequence[int] = (1,),
    units: Sequence[int] = (16, 32, 64),
) -> SearchSpace:
    """Return the space: three nodes for the cell, three for either drug, three after both, three at the end.

    Parameters
    ----------
    input_shape : sequence of three shapes
    output_shape : sequence of int
    units : sequence of int
        Each with ReLU, tanh and sigmoid; the other options are the identity and dropout of 5, 10 and 20 %.
    """
    space = SearchSpace()
    cell, first, second = (
        space.input(shape, name) for shape, name in zip(input_shape, ("cell", "first_drug", "second_drug"))
    )
    options = [
        L.Identity(),
        *(L.Dense(n, activation) for n in units for activation in ("relu", "tanh", "sigmoid")),
        *(L.Dropout(rate) for rate in (0.05, 0.1, 0.2)),
    ]
    c, a, b = cell, first, second
    for i in range(3):
        c = space.choose(f"cell{i}", options, c)
    for i in range(3):
        a = space.choose(f"drug{i}", options, a)
        b = space.reuse(a, b)
    x = both = space.merge([c, a, b], "concat")
    for i in range(3):
        x = space.choose(f"middle{i}", options, x)
    skips = [
        [],
        [cell],
        [first, second],
        [cell, first, second],
        [c],
        [a, b],
        [both],
        [cell, both],
        [first, second, both],
    ]
    x = space.select("skip", skips, x, merge="concat")
    for i in range(3):
        x = space.choose(f"last{i}", options, x)
    space.output(L.Dense(output_shape[-1]), x, shape=output_shape)
    return space


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(combo, input_shape=INPUT_SHAPES, output_shape=(1,))
Problem.preprocessing(stdscaler, outputs=True)
Problem.hyperparameters(batch_size=64, learning_rate=0.003, optimizer="adam", num_epochs=10)
Problem.loss("mse")
Problem.metrics(["r2", "mae"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=200,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 20, "restore_best_weights": True}},
    repeat=3,
)

"""Choosing and tuning a scikit-learn classifier of handwritten digits: a conditional space, and real work.

The data come with scikit-learn: images of 8 x 8 pixels, of which `N_IMAGES` are used so that an evaluation takes
between a twentieth of a second and one second of one core.  The objective is the cross-validated accuracy.

References
----------
Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem

N_IMAGES = 1500
N_FOLDS = 3


@cache
def _problem() -> HpProblem:
    from ConfigSpace import EqualsCondition, InCondition

    from dhmpi.problem import HpProblem

    problem = HpProblem()
    classifier = problem.add_hyperparameter(
        ["random forest", "SVM", "k-NN", "logistic regression", "MLP"], "classifier"
    )
    own: dict[str, dict[str, Any]] = {
        "random forest": {
            "forest_trees": (10, 120, "log-uniform"),
            "forest_depth": (2, 20, "log-uniform"),
            "forest_features": (0.02, 0.5, "log-uniform"),
            "forest_min_leaf": (1, 20, "log-uniform"),
        },
        "SVM": {
            "svm_c": (1e-3, 1e3, "log-uniform"),
            "svm_kernel": ["rbf", "poly", "sigmoid", "linear"],
            "svm_gamma": (1e-4, 10.0, "log-uniform"),
            "svm_degree": [2, 3, 4, 5],
        },
        "k-NN": {
            "knn_neighbors": (1, 50, "log-uniform"),
            "knn_weights": ["uniform", "distance"],
            "knn_power": [1, 2],
        },
        "logistic regression": {
            "logistic_c": (1e-4, 1e3, "log-uniform"),
        },
        "MLP": {
            "mlp_units": (8, 128, "log-uniform"),
            "mlp_activation": ["relu", "tanh", "logistic"],
            "mlp_alpha": (1e-6, 1.0, "log-uniform"),
            "mlp_learning_rate": (1e-4, 1e-1, "log-uniform"),
        },
    }
    for choice, hyperparameters in own.items():
        for name, value in hyperparameters.items():
            hyperparameter = problem.add_hyperparameter(value, name)
            if name not in ("svm_gamma", "svm_degree"):
                problem.add_condition(EqualsCondition(hyperparameter, classifier, choice))
    # Conditions can be nested: these two depend on the kernel, which is there only for an SVM.
    kernel = problem.space["svm_kernel"]
    problem.add_condition(InCondition(problem.space["svm_gamma"], kernel, ["rbf", "poly", "sigmoid"]))
    problem.add_condition(EqualsCondition(problem.space["svm_degree"], kernel, "poly"))
    problem.add_starting_point(classifier="logistic regression", logistic_c=1.0)
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, Any]) -> dict[str, float]:
    """Return the cross-validated accuracy of a classifier, the same each time for the same configuration.

    Parameters
    ----------
    config : dict
        A configuration of ``Problem``.

    Returns
    -------
    dict
        ``objective``, the mean accuracy of the folds in [0, 1]; ``std``, their standard deviation; ``train_accuracy``;
        ``fit_seconds`` and ``score_seconds``, summed over the folds.
    """
    images, labels = _data()
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are few on purpose
        scores = cross_validate(_classifier(config), images, labels, cv=folds, return_train_score=True)
    return {
        "objective": float(scores["test_score"].mean()),
        "std": float(scores["test_score"].std()),
        "train_accuracy": float(scores["train_score"].mean()),
        "fit_seconds": float(scores["fit_time"].sum()),
        "score_seconds": float(scores["score_time"].sum()),
    }


def _classifier(config: dict[str, Any]) -> ClassifierMixin:
    kind = config["classifier"]
    if kind == "random forest":
        return RandomForestClassifier(
            n_estimators=config["forest_trees"],
            max_depth=config["forest_depth"],
            max_features=config["forest_features"],
            min_samples_leaf=config["forest_min_leaf"],
            n_jobs=1,
            random_state=0,
        )
    if kind == "SVM":
        return SVC(
            C=config["svm_c"],
            kernel=config["svm_kernel"],
            gamma=config.get("svm_gamma", "scale"),  # absent for the linear kernel
            degree=config.get("svm_degree", 3),  # absent but for the polynomial one
            max_iter=2000,
        )
    if kind == "k-NN":
        return KNeighborsClassifier(
            n_neighbors=config["knn_neighbors"],
            weights=config["knn_weights"],
            p=config["knn_power"],
            n_jobs=1,
        )
    if kind == "logistic regression":
        return LogisticRegression(C=config["logistic_c"], max_iter=200)
    return MLPClassifier(
        (config["mlp_units"],),
        activation=config["mlp_activation"],
        alpha=config["mlp_alpha"],
        learning_rate_init=config["mlp_learning_rate"],
        max_iter=60,
        random_state=0,
    )


@cache
def _data() -> tuple[np.ndarray, np.ndarray]:
    """Return images of shape (N_IMAGES, 64) in [0, 1], and their digits."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(labels))[:N_IMAGES]
    return images[chosen] / 16, labels[chosen]

"""The policy of PPO: a recurrent network that makes one decision after another, and its gradient, in numpy.

It knows nothing of rewards, losses or agents.  Start reading at :class:`Policy`; its gradient is a vector-Jacobian
product (:meth:`Policy.gradient`), so that any loss of log-probabilities, entropies and values can be put on top.

Numpy and not TensorFlow, because a policy this small is quicker to compute by hand than TensorFlow is to import:
agents start at once, need 40 MB, and are reproducible in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dhmpi.options import NETWORKS

_EPS = 1e-5  # of layer normalisation
_MASKED = -1e9  # logit of an option that a decision does not have


@dataclass(frozen=True)
class Episodes:
    """Architectures as a policy has sampled them, with what that policy thought of them.

    Attributes
    ----------
    choices : ndarray of int, shape (n, n_decisions)
        The option chosen at each decision.
    log_probabilities : ndarray of shape (n, n_decisions)
        Natural logarithm of the probability of each choice, given the choices before it.
    values : ndarray of shape (n, n_decisions)
        The reward that was expected before each decision.
    """

    choices: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.choices)

    def take(self, positions: Sequence[int] | np.ndarray) -> Episodes:
        """Return some of the episodes, in the order of `positions`."""
        index = np.asarray(positions, dtype=int)
        return Episodes(self.choices[index], self.log_probabilities[index], self.values[index])

    @staticmethod
    def join(parts: Sequence[Episodes]) -> Episodes:
        """Return the episodes of all parts, of which there is at least one."""
        return Episodes(
            np.concatenate([part.choices for part in parts]),
            np.concatenate([part.log_probabilities for part in parts]),
            np.concatenate([part.values for part in parts]),
        )


class Evaluation:
    """What a policy thinks of given architectures, and what is needed to differentiate it.

    Attributes
    ----------
    log_probabilities, values : ndarray of shape (n, n_decisions)
        As in :class:`Episodes`.
    entropies : ndarray of shape (n, n_decisions)
        Of the distribution over the options of each decision, in nats; 0 where there is no choice.
    """

    def __init__(self, tape: _Tape, inverse: np.ndarray, log_p: np.ndarray, values: np.ndarray) -> None:
        self._tape = tape
        self._inverse = inverse  # architecture -> row of the tape, which holds each architecture once
        self._p = np.exp(log_p)  # (T, U, A)
        self._log_p = log_p
        steps = np.arange(len(log_p))[:, None]
        chosen = log_p[steps, np.arange(len(tape.choices)), tape.choices.T]
        self._entropies = -(self._p * log_p).sum(axis=-1)
        self.log_probabilities: np.ndarray = chosen.T[inverse]
        self.entropies: np.ndarray = self._entropies.T[inverse]
        self.values: np.ndarray = values.T[inverse]


@dataclass(frozen=True)
class _Prepared:
    """What all steps of a pass share, for both networks.

    tanh(z) is computed as 2 sigmoid(2 z) - 1 and sigmoid(z) as 1 / (1 + exp(-z)), all gates in one go; so what is to
    become an exponent is multiplied by -1, or -2 where it belongs to a tanh, here and not in every step.
    """

    table: np.ndarray  # exponents from every input of a step, shape (2, rows, 4 n_units)
    Wh: np.ndarray
    sign: np.ndarray  # -1 or -2
    gain: np.ndarray | None  # sign times the gain of LN(h Wh); None without normalisation
    x: np.ndarray  # inputs times Wx, normalised if the network is
    x_scale: np.ndarray  # 1 / standard deviation


class _Tape:
    """Activations of both networks at all steps: shapes (2, T, U, ...), the policy's first, U architectures."""

    def __init__(self, n_steps: int, n: int, n_units: int, weights: _Prepared) -> None:
        self.weights = weights
        self.choices = np.zeros((n, n_steps), dtype=int)
        self.rows = np.zeros((n_steps, n), dtype=int)  # of the table of inputs
        self.gates = np.empty((2, n_steps, n, 4 * n_units))  # i, f, o after the sigmoid; u after tanh
        self.c = np.empty((2, n_steps, n, n_units))
        self.tanh_c = np.empty((2, n_steps, n, n_units))  # tanh(c), or tanh(LN(c))
        self.h = np.empty((2, n_steps, n, n_units))
        if weights.gain is not None:
            self.z = np.zeros((2, n_steps, n, 4 * n_units))  # h Wh, normalised; 0 in the first step, where h is 0
            self.z_scale = np.empty((2, n_steps, n, 1))  # 1 / standard deviation
            self.c_hat = np.empty((2, n_steps, n, n_units))  # c, normalised
            self.c_scale = np.empty((2, n_steps, n, 1))


class Policy:
    """A policy and a value network, each a (layer-normalised) LSTM of its own, over a sequence of decisions.

    The input of a step is one-hot: which option the decision before got (nothing in the first step) and which step it
    is.  The output is one logit for each option of the step's decision; the options that it does not have are masked.

    Parameters
    ----------
    n_options : sequence of int
        Options of each decision, >= 1.
    network : str
        One of `NETWORKS`: the cell, and how many units it has.
    seed : int
        Of the initial weights, >= 0.

    Attributes
    ----------
    parameters : ndarray of shape (n_parameters,)
        All weights of both networks; change them in place.  `arrays` names the parts, which are views into it.

    Raises
    ------
    ValueError
        If there is no decision, one without options, or no such network.

    References
    ----------
    Hochreiter, Schmidhuber (1997), Long Short-Term Memory, Neural Computation 9.
    Ba, Kiros, Hinton (2016), Layer Normalization, arXiv:1607.06450.
    """

    def __init__(self, n_options: Sequence[int], network: str = "ppo_lnlstm_128", seed: int = 0) -> None:
        if network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
        if len(n_options) == 0:
            raise ValueError("there is nothing to decide: n_options is empty")
        if min(n_options) < 1:
            raise ValueError(f"every decision needs an option, got n_options={tuple(n_options)}")
        self.n_options = tuple(int(n) for n in n_options)
        self.network = network
        _, cell, units = network.split("_")
        self.normalised = cell == "lnlstm"
        self.n_units = int(units)
        self.n_decisions = len(self.n_options)
        self.n_logits = max(self.n_options)
        self.max_entropy = float(np.log(self.n_options).sum())
        """Entropy of the uniform distribution over all architectures, in nats."""
        self._mask = np.where(np.arange(self.n_logits) < np.array(self.n_options)[:, None], 0.0, _MASKED)
        # Everything a step can see: one row for the first step, one for each option of the decision before in others.
        previous = [(0, None), *((t, choice) for t in range(1, self.n_decisions) for choice in range(n_options[t - 1]))]
        self._inputs = np.zeros((len(previous), self.n_logits + self.n_decisions))
        for row, (t, choice) in enumerate(previous):
            self._inputs[row, self.n_logits + t] = 1.0
            if choice is not None:
                self._inputs[row, choice] = 1.0
        self._first_row = np.cumsum([0, 1, *self.n_options[:-1]])
        shapes = self._shapes()
        self.parameters = np.zeros(sum(int(np.prod(shape)) for shape in shapes.values()))
        self.arrays = self._views(self.parameters)
        self._initialise(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))))

    def act(self, rngs: Sequence[np.random.Generator]) -> Episodes:
        """Sample one architecture with each generator.

        What a generator gives does not depend on the others, so that episodes can be spread over agents at will.
        """
        n = len(rngs)
        uniform = np.array([rng.random(self.n_decisions) for rng in rngs]).reshape(n, self.n_decisions)
        tape = _Tape(self.n_decisions, n, self.n_units, self._prepare())
        log_probabilities = np.empty((n, self.n_decisions))
        for t, n_options in enumerate(self.n_options):
            self._step(t, tape)
            log_p = self._log_p(tape.h[0, t], t)[:, :n_options]
            cumulative = np.exp(log_p).cumsum(axis=1)
            choice = (cumulative[:, :-1] <= uniform[:, t, None] * cumulative[:, -1:]).sum(axis=1)
            tape.choices[:, t] = choice
            if t + 1 < self.n_decisions:
                tape.rows[t + 1] = self._first_row[t + 1] + choice
            log_probabilities[:, t] = log_p[np.arange(n), choice]
        return Episodes(tape.choices, log_probabilities, self._values(tape).T.copy())

    def evaluate(self, choices: np.ndarray) -> Evaluation:
        """Compute what the policy thinks of given architectures; equal ones are computed once.

        Parameters
        ----------
        choices : ndarray of int, shape (n, n_decisions)

        Raises
        ------
        ValueError
            If a choice is no option.
        """
        choices = np.asarray(choices)
        if choices.ndim != 2 or choices.shape[1] != self.n_decisions:
            raise ValueError(f"choices must have shape (n, {self.n_decisions}), got {choices.shape}")
        if np.any(choices < 0) or np.any(choices >= self.n_options):
            raise ValueError(f"choices must be >= 0 and below {self.n_options}")
        distinct, inverse = np.unique(choices, axis=0, return_inverse=True)
        tape = _Tape(self.n_decisions, len(distinct), self.n_units, self._prepare())
        tape.choices[:] = distinct
        tape.rows[1:] = self._first_row[1:-1, None] + distinct.T[:-1]
        for t in range(self.n_decisions):
            self._step(t, tape)
        log_p = self._log_p(tape.h[0], slice(None))
        return Evaluation(tape, inverse.reshape(-1), log_p, self._values(tape))

    def gradient(
        self,
        evaluation: Evaluation,
        d_log_probabilities: np.ndarray,
        d_entropies: np.ndarray,
        d_values: np.ndarray,
    ) -> np.ndarray:
        """Differentiate a loss, by backpropagation through all decisions.

        Parameters
        ----------
        evaluation : Evaluation
            Of this policy, whose parameters have not changed since.
        d_log_probabilities, d_entropies, d_values : ndarray of shape (n, n_decisions)
            Derivatives of the loss with respect to what the evaluation gives.

        Returns
        -------
        ndarray of shape (n_parameters,)
            Derivative of the loss with respect to `parameters`.
        """
        tape, inverse = evaluation._tape, evaluation._inverse
        d_log_p, d_entropy, d_value = (
            _summed(d, inverse, len(tape.choices)).T for d in (d_log_probabilities, d_entropies, d_values)
        )
        # d log p_chosen / d logits = onehot - p;  d H / d logits = -p (log p + H)
        p = evaluation._p
        d_logits = -p * (
            d_log_p[..., None] + d_entropy[..., None] * (evaluation._log_p + evaluation._entropies[..., None])
        )
        steps = np.arange(self.n_decisions)[:, None]
        d_logits[steps, np.arange(len(tape.choices)), tape.choices.T] += d_log_p
        result = np.empty_like(self.parameters)
        d = self._views(result)
        flat_h = tape.h.reshape(2, -1, self.n_units)
        np.matmul(flat_h[0].T, d_logits.reshape(-1, self.n_logits), out=d["W_logits"])
        d["b_logits"][:] = d_logits.sum(axis=(0, 1))
        np.matmul(flat_h[1].T, d_value.reshape(-1, 1), out=d["W_value"])
        d["b_value"][:] = d_value.sum()
        d_h = np.empty_like(tape.h)
        np.matmul(d_logits, self.arrays["W_logits"].T, out=d_h[0])
        np.multiply(d_value[..., None], self.arrays["W_value"][:, 0], out=d_h[1])
        self._backward(tape, d_h, d)
        return result

    def fingerprint(self) -> str:
        """Return 16 hex digits that two policies share only if their parameters are equal to the last bit."""
        return hashlib.sha256(self.parameters.tobytes()).hexdigest()[:16]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n_inputs, n_units = self._inputs.shape[1], self.n_units
        shapes: dict[str, tuple[int, ...]] = {
            "Wx": (2, n_inputs, 4 * n_units),
            "Wh": (2, n_units, 4 * n_units),
            "b": (2, 4 * n_units),
        }
        if self.normalised:
            shapes |= dict.fromkeys(("gx", "bx", "gh", "bh"), (2, 4 * n_units))
            shapes |= dict.fromkeys(("gc", "bc"), (2, n_units))
        return shapes | {
            "W_logits": (n_units, self.n_logits),
            "b_logits": (self.n_logits,),
            "W_value": (n_units, 1),
            "b_value": (1,),
        }

    def _views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        views, start = {}, 0
        for name, shape in self._shapes().items():
            size = int(np.prod(shape))
            views[name] = flat[start : start + size].reshape(shape)
            start += size
        return views

    def _initialise(self, rng: np.random.Generator) -> None:
        for name in ("Wx", "Wh"):
            for k in range(2):
                self.arrays[name][k] = _orthogonal(rng, self.arrays[name][k].shape)
        for name in ("gx", "gh", "gc"):
            if name in self.arrays:
                self.arrays[name][:] = 1.0
        # Small, so that a new policy is almost uniform.
        for name in ("W_logits", "W_value"):
            self.arrays[name][:] = 0.01 * _orthogonal(rng, self.arrays[name].shape)

    def _prepare(self) -> _Prepared:
        w = self.arrays
        sign = np.repeat([-1.0, -2.0], [3 * self.n_units, self.n_units])
        x = np.matmul(self._inputs, w["Wx"])
        if not self.normalised:
            return _Prepared(sign * (x + w["b"][:, None]), w["Wh"], sign, None, x, np.ones(1))
        x, scale = _normalise(x)
        table = w["gx"][:, None] * x + (w["bx"] + w["bh"] + w["b"])[:, None]
        # Centred weights make products that need no centring.
        return _Prepared(sign * table, _centred(w["Wh"]), sign, (sign * w["gh"])[:, None], x, scale)

    def _step(self, t: int, tape: _Tape) -> None:
        """Compute step t of both networks from the one before.

        With LN(v; g, b) = g (v - mean) / std + b over the units:
        z = LN(x Wx; gx, bx) + LN(h Wh; gh, bh) + b;  i, f, o = sigmoid of the first three quarters of z;
        u = tanh of the last;  c = f c + i u;  h = o tanh(LN(c; gc, bc)).  Without normalisation LN(v) = v.
        """
        n_units, weights = self.n_units, tape.weights
        gates = tape.gates[:, t]
        np.take(weights.table, tape.rows[t], axis=1, out=gates, mode="clip")  # other modes go through a copy
        if t > 0 and weights.gain is not None:
            z = tape.z[:, t]
            np.matmul(tape.h[:, t - 1], weights.Wh, out=z)
            tape.z_scale[:, t] = scale = _scale(z)
            z *= scale
            gates += z * weights.gain
        elif t > 0:
            gates += weights.sign * (tape.h[:, t - 1] @ weights.Wh)
        _sigmoid(gates)
        i, f, o, u = (gates[..., k * n_units : (k + 1) * n_units] for k in range(4))
        u *= 2.0  # tanh(z) = 2 sigmoid(2 z) - 1
        u -= 1.0
        c = tape.c[:, t]
        np.multiply(i, u, out=c)
        if t > 0:
            c += f * tape.c[:, t - 1]
        tanh_c = tape.tanh_c[:, t]
        if self.normalised:
            tape.c_hat[:, t], tape.c_scale[:, t] = _normalise(c)
            np.multiply(tape.c_hat[:, t], -2.0 * self.arrays["gc"][:, None], out=tanh_c)
            tanh_c -= 2.0 * self.arrays["bc"][:, None]
        else:
            np.multiply(c, -2.0, out=tanh_c)
        _sigmoid(tanh_c)
        tanh_c *= 2.0
        tanh_c -= 1.0
        np.multiply(o, tanh_c, out=tape.h[:, t])

    def _backward(self, tape: _Tape, d_h: np.ndarray, d: dict[str, np.ndarray]) -> None:
        """Fill in the derivatives of both cells, given those of their outputs, shape (2, T, U, n_units)."""
        n_units, n = self.n_units, len(tape.choices)
        d_table = np.zeros((2, len(self._inputs), 4 * n_units))
        d_z = np.empty((2, self.n_decisions, n, 4 * n_units))
        d_c = np.zeros((2, n, n_units))  # from the step after
        if self.normalised:
            for name in ("gh", "gc", "bc"):
                d[name][:] = 0.0
        for t in reversed(range(self.n_decisions)):
            gates = d_z[:, t]
            self._step_backward(t, tape, d_h[:, t], d_c, gates, d)
            first, last = self._first_row[t], self._first_row[t + 1]
            seen = (tape.rows[t] == np.arange(first, last)[:, None]).astype(float)
            d_table[:, first:last] = seen @ gates
            if t == 0:
                break
            if self.normalised:
                # As _unnormalise; what that takes off as the mean, the centred weights take off.
                z = tape.z[:, t]
                d["gh"] += np.einsum("kui,kui->ki", gates, z)
                gates *= self.arrays["gh"][:, None]
                gates -= z * (np.einsum("kui,kui->ku", gates, z)[..., None] / (4 * n_units))
                gates *= tape.z_scale[:, t]
            d_h[:, t - 1] += gates @ tape.weights.Wh.transpose(0, 2, 1)
        h = tape.h[:, :-1].reshape(2, -1, n_units)
        np.matmul(h.transpose(0, 2, 1), d_z[:, 1:].reshape(2, -1, 4 * n_units), out=d["Wh"])
        d["b"][:] = d_table.sum(axis=1)
        if self.normalised:
            d["Wh"][:] = _centred(d["Wh"])
            d["bx"][:] = d["bh"][:] = d["b"]
            x = tape.weights.x
            d["gx"][:] = np.einsum("kri,kri->ki", d_table, x)
            d_table = _unnormalise(d_table * self.arrays["gx"][:, None], x, tape.weights.x_scale)
        np.matmul(self._inputs.T, d_table, out=d["Wx"])

    def _step_backward(
        self, t: int, tape: _Tape, d_h: np.ndarray, d_c: np.ndarray, d_gates: np.ndarray, d: dict[str, np.ndarray]
    ) -> None:
        """Go back from h and c of step t: fill in the derivatives of z, and turn `d_c` into that of the c before."""
        n_units = self.n_units
        i, f, o, u = (tape.gates[:, t, :, k * n_units : (k + 1) * n_units] for k in range(4))
        d_i, d_f, d_o, d_u = (d_gates[..., k * n_units : (k + 1) * n_units] for k in range(4))
        tanh_c = tape.tanh_c[:, t]
        np.multiply(d_h * tanh_c, o * (1.0 - o), out=d_o)
        d_y = d_h * o * (1.0 - tanh_c * tanh_c)
        if self.normalised:
            c_hat = tape.c_hat[:, t]
            d["gc"] += np.einsum("kui,kui->ki", d_y, c_hat)
            d["bc"] += d_y.sum(axis=1)
            d_y = _unnormalise(d_y * self.arrays["gc"][:, None], c_hat, tape.c_scale[:, t])
        d_c += d_y
        np.multiply(d_c * u, i * (1.0 - i), out=d_i)
        np.multiply(d_c * i, 1.0 - u * u, out=d_u)
        if t > 0:
            np.multiply(d_c * tape.c[:, t - 1], f * (1.0 - f), out=d_f)
        else:
            d_f[:] = 0.0
        d_c *= f

    def _log_p(self, h: np.ndarray, steps: int | slice) -> np.ndarray:
        """Return log-probabilities of all options: (U, A) for one step, (T, U, A) for a slice."""
        mask = self._mask[steps]
        logits = h @ self.arrays["W_logits"] + self.arrays["b_logits"]
        logits += mask if mask.ndim == 1 else mask[:, None]
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def _values(self, tape: _Tape) -> np.ndarray:
        return (tape.h[1] @ self.arrays["W_value"])[..., 0] + self.arrays["b_value"]


def _sigmoid(minus_z: np.ndarray) -> None:
    """Replace -z by sigmoid(z)."""
    with np.errstate(over="ignore"):  # to infinity, of which the reciprocal is the right 0
        np.exp(minus_z, out=minus_z)
    minus_z += 1.0
    np.reciprocal(minus_z, out=minus_z)


def _centred(v: np.ndarray) -> np.ndarray:
    return v - v.mean(axis=-1, keepdims=True)


def _scale(v: np.ndarray) -> np.ndarray:
    """Return 1 / standard deviation of centred `v` over the last axis."""
    return 1.0 / np.sqrt(np.einsum("...i,...i->...", v, v)[..., None] / v.shape[-1] + _EPS)


def _normalise(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `v` normalised over the last axis, and 1 / standard deviation."""
    v = _centred(v)
    scale = _scale(v)
    v *= scale
    return v, scale


def _unnormalise(d: np.ndarray, normalised: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the derivative with respect to what was normalised, given the one with respect to the result."""
    along = np.einsum("...i,...i->...", d, normalised)[..., None] / d.shape[-1]
    return scale * (_centred(d) - normalised * along)


def _summed(rows: np.ndarray, inverse: np.ndarray, n: int) -> np.ndarray:
    """Add up the rows that share an entry of `inverse`."""
    result = np.zeros((n, rows.shape[1]))
    np.add.at(result, inverse, rows)
    return result


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random matrix whose rows (or columns, whichever are fewer) are orthonormal (Saxe et al. 2013)."""
    tall = rng.standard_normal((max(shape), min(shape)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))
    return q if shape[0] >= shape[1] else q.T

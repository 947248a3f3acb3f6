"""Data-parallel training: the ``--run`` that trains a network on all ranks of an evaluation, and its parts for others.

    dhmpi ambs --problem ... --run dhmpi.nas.run.horovod.run --num-ranks-per-eval 4

Gradients are averaged by Horovod where it is installed (``python -m dhmpi.nas.run.build_horovod``), else by mpi4py;
everything else is small and goes by mpi4py in either case.  Horovod is set up for the ranks of one evaluation and shut
down after it, so that the next one can have others.  Its own optimizers and callbacks are of no use with Keras 3: the
first average nothing, without a word, the second crash.

A run function of one's own needs :func:`joined` and :func:`distribute`::

    def run(config, comm=None):
        with joined(comm) as group:
            optimizer = distribute(keras.optimizers.Adam(config["learning_rate"]), group)
            ...

When a rank gives up, the others are told with their next message, and give up as well: nobody waits for the dead end of
another.  Start reading at :func:`run`.
"""

from __future__ import annotations

import enum
import importlib
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

import dhmpi
from dhmpi.errors import DhmpiError, ProblemError
from dhmpi.mpi.wait import Wait
from dhmpi.nas import training
from dhmpi.nas.parallel import ALONE, Group, MemberError
from dhmpi.nas.problem import NaProblem

BACKENDS = ("horovod", "mpi4py")
NUM_RANKS = "num_ranks"
"""The hyperparameter that is the number of ranks of an evaluation."""
LOOKS = 20
"""How often one looks whether a message has come before one begins to sleep."""
LOOKS_FOR_DEAD = 200
"""How often one looks before one looks whether a rank has died: about a second."""


def run(config: dict[str, Any], comm: Any = None, backend: str | None = None) -> dict[str, Any]:
    """Train a network on all ranks of the evaluation; return its objective and metrics (collective over them).

    It does what :func:`dhmpi.nas.run.alpha.run` does, whatever the number of ranks: each sees its share of every batch,
    and of the validation data; files are written by the leader.  ``batch_size`` and ``learning_rate`` are of all ranks
    together, unless the problem has ``rank_scaling`` (:meth:`dhmpi.nas.problem.NaProblem.hyperparameters`).

    Parameters
    ----------
    config : dict
        ``arch_seq`` and hyperparameters, those of the leader.
    comm : communicator, optional
        The ranks; by default those of ``dhmpi.trial().comm``, and this one alone if there is none.
    backend : {"horovod", "mpi4py"}, optional
        What averages gradients; by default Horovod if each rank has it.

    Returns
    -------
    dict
        As :func:`dhmpi.nas.training.train` does, on each rank.
    """
    trial = dhmpi.trial()
    problem = _problem()
    with joined(trial.comm if comm is None else comm, backend) as group:
        config, seed, watched = group.lead(lambda: (dict(config), trial.seed, trial.watched))
        return training.train(
            problem,
            config,
            seed,
            directory=trial.directory,
            report=trial.report,
            should_stop=trial.should_stop,
            every_epoch=watched,
            good=_good(problem),
            group=group,
        )


def prepare() -> None:
    """Import TensorFlow, load the data, and look whether everything fits."""
    training.prepare(_problem(), effective=(NUM_RANKS,))


run.prepare = prepare  # type: ignore[attr-defined]


@contextmanager
def joined(comm: Any, backend: str | None = None) -> Iterator[Group]:
    """Be one of the ranks that train together, for as long as the block lasts (collective over comm).

    At its end ranks wait for each other, so that it ends well for all or for none.

    Parameters
    ----------
    comm : communicator or None
        Of mpi4py.  Neither None nor a single rank needs MPI or Horovod.
    backend : {"horovod", "mpi4py"}, optional
        By default Horovod if each rank has it.

    Raises
    ------
    MemberError
        If another rank has left the block with an exception; it names that.
    ProblemError
        If there is no such backend here.
    """
    if backend is not None and backend not in BACKENDS:
        raise ProblemError(f"there is no backend {backend!r}; choose among {', '.join(BACKENDS)}")
    if comm is None or comm.Get_size() == 1:
        yield ALONE
        return
    group = _Ranks(comm)
    dhmpi.trial().on_abandon(group.free)
    try:
        hvd = horovod() if backend != "mpi4py" else None
        if backend == "horovod" and hvd is None:
            raise ProblemError("Horovod is not installed; python -m dhmpi.nas.run.build_horovod builds it")
        if hvd is not None and hvd.is_initialized():
            raise ProblemError("a process trains with Horovod in one group at a time, and it is in another already")
        if all(group.gather(hvd is not None)):
            group.use(hvd)
        yield group
        group.close()
    except BaseException as error:
        reason = group.give_up(error)
        if reason is None or reason is error:
            raise
        raise reason from error


def distribute(optimizer: Any, comm: Any) -> Any:
    """Have an optimizer of Keras apply the mean of the gradients of several ranks, then return it.

    All ranks must take equally many steps, and begin with equal weights; then they have equal weights ever after.  Also
    for ``keras.Model.fit``.  Gradients count equally: give ranks batches of one size.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Its method ``apply`` is replaced.
    comm : Group or communicator
        What :func:`joined` gives; or the communicator of mpi4py of the block that one is in.

    Raises
    ------
    ProblemError
        If nobody has joined the ranks of the communicator.
    """
    group = comm if isinstance(comm, Group) else _joined(comm)
    if group.size == 1:
        return optimizer
    apply = optimizer.apply

    def applied(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        tf = training.tensorflow()[1]
        known = [i for i, gradient in enumerate(grads) if gradient is not None]
        means = group.mean([tf.convert_to_tensor(grads[i]) for i in known])
        found = dict(zip(known, means))
        return apply([found.get(i) for i in range(len(grads))], trainable_variables)

    optimizer.apply = applied
    return optimizer


@cache
def horovod() -> Any:
    """Return Horovod for TensorFlow, None if it is not installed.

    Raises
    ------
    ProblemError
        If it is, but cannot be used.
    """
    training.tensorflow()
    try:
        found = importlib.import_module("horovod.tensorflow")
    except ModuleNotFoundError as error:
        if error.name == "horovod":
            return None
        raise ProblemError(_unusable(error)) from error
    except Exception as error:  # TensorFlow has its own for a library that does not fit
        raise ProblemError(_unusable(error)) from error
    if not found.mpi_built():
        raise ProblemError(_unusable("it was built without MPI"))
    return found


def _unusable(why: object) -> str:
    text = " ".join(str(why).split())
    return f"Horovod is installed but cannot be used: {text}; python -m dhmpi.nas.run.build_horovod --rebuild mends it"


class _Ranks(Group):
    """Several ranks, by mpi4py; they may use Horovod for means.

    Each exchange begins with a word from everybody: whether he goes on.  So a rank that gives up answers whatever the
    others wait for, they learn of it there, and all are done with each other.  Messages go over a copy of the
    communicator, since an exchange that is broken off leaves it unusable.
    """

    def __init__(self, comm: Any) -> None:
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.comm = comm
        self._copy, request = comm.Idup()
        self._hvd: Any = None
        self._exchanging = False
        self._parted = False
        self._freed = False
        self._shutting_down = threading.Lock()
        self._reason: MemberError | None = None
        self._finish(request)
        _open.append(self)

    def use(self, hvd: Any) -> None:
        """Have Horovod compute means (collective)."""
        hvd.init(comm=self.comm)
        self._hvd = hvd

    def gather(self, value: Any) -> list[Any]:
        self._agree()
        return [pickle.loads(data) for data in self._exchange(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))]

    def mean(self, tensors: Sequence[Any]) -> list[Any]:
        if self._hvd is not None:
            # Horovod matches by name; what it finds itself depends on what a process has done before.
            return list(
                self._hvd.grouped_allreduce(tensors, op=self._hvd.Average, name="dhmpi_mean", ignore_name_scope=True)
            )
        tf = training.tensorflow()[1]
        found = tf.numpy_function(self._means, tensors, [tensor.dtype for tensor in tensors])
        for one, tensor in zip(found, tensors):
            one.set_shape(tensor.shape)
        return list(found)

    def close(self) -> None:
        """Part in peace (collective)."""
        self._agree()
        self._part()
        self._copy.Free()

    def give_up(self, error: BaseException) -> MemberError | None:
        """Part because of an exception: tell the others, and return why another rank did so, if that was the cause."""
        if not self._parted:
            self._part()  # whoever waits in Horovod is free now, and comes here as well
            if not self._exchanging and not self._freed:
                self._agree(error)
        return self._reason

    def free(self) -> None:
        """Let this rank wait for no other any more; called from another thread, for what no exception reaches."""
        self._freed = True
        # A thread of its own, since Horovod itself may wait for one that is dead.
        threading.Thread(target=self._shut_down, name="dhmpi frees", daemon=True).start()

    def _part(self) -> None:
        self._parted = True
        _open.remove(self)
        self._shut_down()

    def _shut_down(self) -> None:
        with self._shutting_down:
            if self._hvd is not None:
                self._hvd.shutdown()

    def _agree(self, error: BaseException | None = None) -> None:
        """Tell the others that this rank goes on, or why it does not; hear the same of them."""
        state = _State.GOES_ON
        if error is not None:
            shut_down = self._hvd is not None and "Horovod has been shut down" in str(error)
            state = _State.WAS_FREED if shut_down else _State.GIVES_UP
        states = np.empty(self.size, np.int32)
        self._finish(self._copy.Iallgather(np.array([state], np.int32), states))
        if not states.any():
            return
        reasons = self._exchange(b"" if error is None else _words(error).encode())
        if state != _State.GIVES_UP:
            first = next((rank for rank, other in enumerate(states) if other == _State.GIVES_UP), None)
            if first is not None:
                self._reason = MemberError(f"rank {first} of the group has given up: {reasons[first].decode()}")
        if state == _State.GOES_ON and self._reason is not None:
            self._part()
            raise self._reason

    def _means(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return means of arrays over all ranks; all arrays of a type go in one message."""
        self._agree()
        found = list(arrays)
        for dtype in dict.fromkeys(array.dtype for array in arrays):
            rows = [i for i, array in enumerate(arrays) if array.dtype == dtype]
            flat = np.concatenate([arrays[i].ravel() for i in rows])
            if dtype.itemsize < 4:
                flat = flat.astype(np.float32)  # MPI knows no shorter ones
            total = np.empty_like(flat)
            self._finish(self._copy.Iallreduce(flat, total))
            total /= self.size
            ends = np.cumsum([arrays[i].size for i in rows])[:-1]
            for i, part in zip(rows, np.split(total, ends)):
                found[i] = part.reshape(arrays[i].shape).astype(dtype, copy=False)
        return found

    def _exchange(self, data: bytes) -> list[bytes]:
        """Return the bytes of each rank."""
        lengths = np.empty(self.size, np.int64)
        self._finish(self._copy.Iallgather(np.array([len(data)], np.int64), lengths))
        received = np.empty(int(lengths.sum()), np.uint8)
        self._finish(self._copy.Iallgatherv(np.frombuffer(data, np.uint8), [received, lengths.tolist()]))
        return [part.tobytes() for part in np.split(received, np.cumsum(lengths)[:-1])]

    def _finish(self, request: Any) -> None:
        """Wait for an exchange; a rank that dies ends it where MPI can tell."""
        self._exchanging = True
        try:
            wait, looks = Wait(), 0
            while not request.Test():
                if self._freed:
                    raise MemberError("the evaluation has been abandoned")
                looks += 1
                if looks > LOOKS:
                    wait.sleep()
                if looks % LOOKS_FOR_DEAD == 0:
                    self._look_for_dead()
        except BaseException:
            _abandoned.append(request)  # MPI may still write into its buffer
            raise
        self._exchanging = False

    def _look_for_dead(self) -> None:
        try:
            dead = self._copy.Get_failed()
        except Exception:
            return  # an MPI that does not know
        n_dead = dead.Get_size()
        dead.Free()
        if n_dead:
            raise MemberError(f"{n_dead} of the {self.size} ranks of the group have died")


_open: list[_Ranks] = []
"""Groups whose blocks are not left yet."""
_abandoned: list[Any] = []
"""Exchanges that were broken off."""


class _State(enum.IntEnum):
    """What a rank says before each exchange."""

    GOES_ON = 0
    GIVES_UP = 1
    WAS_FREED = 2  # by one that gave up, out of Horovod


def _joined(comm: Any) -> Group:
    if comm is None or comm.Get_size() == 1:
        return ALONE
    found = next((group for group in _open if group.comm == comm), None)
    if found is None:
        raise ProblemError("distribute needs the ranks of the communicator to be together: with joined(comm): ...")
    return found


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, DhmpiError) else f"{type(error).__name__}: {text}"


def _problem() -> NaProblem:
    return training.problem_of_trial("dhmpi.nas.run.horovod.run")


@cache
def _good(problem: NaProblem) -> training.GoodOnes:
    """Remember the best objectives of this process."""
    return training.GoodOnes()

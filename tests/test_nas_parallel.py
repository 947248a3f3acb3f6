"""Who sees which samples, and what a rank alone makes of it; ranks that really train together: tests/mpi."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.errors import ProblemError
from dhmpi.nas import callbacks
from dhmpi.nas.data import Arrays, Stream
from dhmpi.nas.parallel import ALONE, Group, share
from dhmpi.nas.problem import NaProblem
from dhmpi.nas.run import horovod

SHAPES, TYPES = (((2,),), ((1,),)), ((np.dtype(np.float32),), (np.dtype(np.float32),))


class Member(Group):
    """A rank that never has to talk to the others."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Ranks:
    """A communicator that nobody has joined."""

    def Get_size(self):
        return 2


def arrays(n):
    column = np.arange(n, dtype=np.float32)[:, None]
    return Arrays((np.hstack([column, -column]),), (column,))


def stream(n):
    return Stream(lambda: (((i, -i), i) for i in range(n)), n, TYPES, SHAPES, "the generator")


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_cover_every_sample_once_and_are_nearly_equal(n, size):
    shares = [share(n, rank, size) for rank in range(size)]

    assert [i for part in shares for i in range(n)[part]] == list(range(n))
    assert max(len(range(n)[part]) for part in shares) - min(len(range(n)[part]) for part in shares) <= 1


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 7), st.sampled_from([arrays, stream]), st.booleans())
def test_ranks_share_the_batches_of_one_rank_in_equally_many_steps(n, batch_size, size, make, shuffled):
    def batches(group):
        return list(make(n).batches(batch_size, np.random.default_rng(5) if shuffled else None, group))

    alone, *others = (batches(group) for group in (ALONE, *(Member(rank, size) for rank in range(size))))

    assert {len(theirs) for theirs in others} == {len(alone)}
    for (inputs, outputs), *parts in zip(alone, *others):
        assert np.array_equal(np.concatenate([part[0][0] for part in parts]), inputs[0])
        assert np.array_equal(np.concatenate([part[1][0] for part in parts]), outputs[0])


@pytest.mark.parametrize(
    ("scaling", "batch_size", "rate"), [("none", 32, 0.01), ("linear", 128, 0.04), ("sqrt", 128, 0.02)]
)
def test_batch_size_and_learning_rate_scale_with_the_ranks(scaling, batch_size, rate):
    problem = NaProblem()
    problem.hyperparameters(batch_size=32, learning_rate=0.01, rank_scaling=scaling)

    scaled = problem.settings({}).on_ranks(4)

    assert (scaled.batch_size, scaled.learning_rate) == (batch_size, pytest.approx(rate))
    assert problem.settings({}).on_ranks(1) == problem.settings({})


def test_scaling_and_warm_up_can_be_searched():
    problem = NaProblem()
    problem.add_hyperparameter(["linear", "sqrt"], "rank_scaling")
    problem.add_hyperparameter((0, 5), "warmup_epochs")

    settings_ = problem.settings({"rank_scaling": "sqrt", "warmup_epochs": 3})

    assert (settings_.rank_scaling, settings_.warmup_epochs) == ("sqrt", 3)
    assert problem.ineffective() == []


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"rank_scaling": "cubic"}, "rank_scaling must be one of none, linear, sqrt, got 'cubic'"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a number >= 0, got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(given_, words):
    with pytest.raises(ProblemError) as caught:
        NaProblem().hyperparameters(**given_)

    assert str(caught.value) == words


@pytest.mark.tensorflow
def test_the_learning_rate_warms_up_and_is_left_alone_afterwards():
    class Network:
        class optimizer:
            learning_rate = 0.0

    listener, seen = callbacks.warm_up(0.4, 1.5, 4, 2), []
    listener.set_model(Network)
    for epoch in range(3):
        listener.on_epoch_begin(epoch)
        for batch in range(2):
            listener.on_train_batch_begin(batch)
            seen.append(Network.optimizer.learning_rate)
            Network.optimizer.learning_rate = 9.0

    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 9.0, 9.0])


def test_a_rank_alone_needs_nobody():
    with horovod.joined(None, "horovod") as group:
        assert (group.rank, group.size, group.leads) == (0, 1, True)
        assert group.gather(3) == [3]
        assert group.mean(["gradient"]) == ["gradient"]
        assert group.lead(lambda: 5) == 5
        assert horovod.distribute("optimizer", group) == "optimizer"
        assert horovod.distribute("optimizer", None) == "optimizer"


def test_ranks_must_have_been_joined():
    with pytest.raises(ProblemError, match="with joined"):
        horovod.distribute("optimizer", Ranks())


def test_there_are_two_backends():
    with (
        pytest.raises(ProblemError, match="there is no backend 'gloo'; choose among horovod, mpi4py"),
        horovod.joined(Ranks(), "gloo"),
    ):
        pass


@pytest.mark.tensorflow
@pytest.mark.parametrize("error", [ImportError("undefined symbol"), ModuleNotFoundError("no", name="horovod")])
def test_a_horovod_that_is_broken_is_not_taken_for_none(error, monkeypatch):
    def importing(name):
        raise error

    horovod.training.tensorflow()
    monkeypatch.setattr(importlib, "import_module", importing)
    found = horovod.horovod.__wrapped__

    if isinstance(error, ModuleNotFoundError):
        assert found() is None
    else:
        with pytest.raises(ProblemError, match="cannot be used: undefined symbol; .*--rebuild"):
            found()

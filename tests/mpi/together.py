"""Ranks that train one network together, several times; rank 0 prints what each has seen, as JSON.

mpiexec -n 3 python -m together BACKEND SCENARIO...
"""

import gc
import hashlib
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import dhmpi
from dhmpi.evaluate.context import TrialContext, enter, leave
from dhmpi.nas import SearchSpace, training
from dhmpi.nas import layers as L
from dhmpi.nas.parallel import ALONE
from dhmpi.nas.preprocessing import stdscaler
from dhmpi.nas.problem import NaProblem
from dhmpi.nas.run import horovod

WORLD = MPI.COMM_WORLD
RANK, SIZE = WORLD.Get_rank(), WORLD.Get_size()
N_TRAIN, N_VALID = 61, 37  # neither can be shared out equally


def space(input_shape, output_shape):
    s = SearchSpace()
    inputs = s.input(input_shape)
    hidden = s.choose("layer", [L.Dense(8, "tanh"), L.Dropout(0.5)], inputs)
    s.output(L.Dense(output_shape[-1]), s.skips("skip", hidden, [inputs]))
    return s


def normalised(values):
    """Build a network with moving averages, with one that is not trained, and with an activity regulariser."""
    import keras

    x = keras.Input((4,))
    y = keras.layers.BatchNormalization(momentum=0.5)(x)
    y = keras.layers.Dense(values["units"], activation="relu", activity_regularizer=keras.regularizers.L2(1e-3))(y)
    return keras.Model(x, keras.layers.Dense(2, trainable=True)(y))


def data():
    """Return regression data; the validation data are not like each other: their first third is easy."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N_TRAIN + N_VALID, 4))
    y = x @ [[1.0, 0.0], [2.0, 5.0], [-3.0, 0.0], [0.0, 1.0]] + 0.1 * rng.normal(size=(len(x), 2))
    y[N_TRAIN + N_VALID // 3 :] += 3
    return (x[:N_TRAIN], y[:N_TRAIN]), (x[N_TRAIN:], y[N_TRAIN:])


def problem_of(objective="val_r2", **settings):
    problem = NaProblem()
    problem.load_data(data)
    problem.search_space(space)
    problem.preprocessing(stdscaler, outputs=True)
    problem.hyperparameters(**{"batch_size": 16, "learning_rate": 0.02, "num_epochs": 2, **settings})
    problem.loss("mse")
    problem.metrics(["r2", "mse"])
    problem.objective(objective)
    return problem


Problem = problem_of(keep_predictions="all", callbacks={"CSVLogger": {}})
"""What `the_run_function` trains."""


def digest(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:12]


def result_of(problem, group, arch=(0, 1), **kwargs):
    result = training.train(problem, {"arch_seq": list(arch)}, 3, group=group, **kwargs)
    return {name: value for name, value in result.items() if name not in ("training_seconds", "peak_rss")}


def trained(problem, group, arch=(0, 1), steps=None, seed=3):
    """Return the weights of a network after training."""
    settings = problem.settings({}).on_ranks(group.size)
    network = training.build(problem, list(arch), seed, settings)
    callbacks = []
    if steps is not None:
        import keras

        callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(logs["loss"]))]
    training.fit(network, problem.data.train, settings, 3, {}, callbacks, group=group)
    return network.get_weights()


# --- Scenarios: collective over the world, each returns what is to be known of this rank


def different_data(backend):
    """Train with Keras itself, each rank on data of its own."""
    import keras

    def fitted(group):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(horovod.distribute(keras.optimizers.Adam(1e-2), group), "mse")
        x = np.random.default_rng(RANK).normal(size=(72, 8)).astype("f")
        model.fit(x, x.sum(1, keepdims=True) * (1 + RANK), epochs=2, batch_size=32, verbose=0)  # 32, 32 and 8
        return digest(model.get_weights())

    with horovod.joined(WORLD, backend):
        together = fitted(WORLD)
    return {"together": together, "apart": fitted(ALONE)}


def one_rank_or_many(backend):
    """Compare with what rank 0 does alone: weights, losses of batches, judgement."""
    found = {}
    for optimizer in ("sgd", "adam"):
        problem = problem_of(optimizer=optimizer, num_epochs=3)
        alone, ours = [], []
        with horovod.joined(WORLD, backend) as group:
            weights = trained(problem, group, steps=ours)
        expected = trained(problem, ALONE, steps=alone)
        found[optimizer] = {
            "weights": max(float(np.abs(a - b).max()) for a, b in zip(weights, expected)),
            "losses": max(abs(a - b) for a, b in zip(ours, alone)),
            "steps": [len(ours), len(alone)],
            "digest": digest(weights),
        }
    return found


def judged_whole(backend):
    problem = problem_of(num_epochs=2)
    with horovod.joined(WORLD, backend) as group:
        together = result_of(problem, group)
    return {"together": together, "alone": result_of(problem, ALONE)}


def moving_averages(backend):
    problem = problem_of(num_epochs=2)
    problem.search_space(SearchSpace(decisions={"units": [8]}, build=normalised))
    with horovod.joined(WORLD, backend) as group:
        weights = trained(problem, group, [0])
        result = result_of(problem, group, [0])
    return {"digest": digest(weights), "moved": bool(np.abs(weights[2]).max() > 0), "loss": result["val_loss"]}


def noise(backend):
    """Apply a network with dropout as in training, on all ranks, from the same weights."""
    problem = problem_of()
    with horovod.joined(WORLD, backend) as group:
        network = training.build(problem, [1, 1], 3 + RANK, problem.settings({}))
        training._start_alike(network, group)
        seen = np.asarray(network(np.ones((8, 4), np.float32), training=True))
    return {"weights": digest(network.get_weights()), "noise": digest([seen])}


def graphs_left(backend):
    """Count graphs of TensorFlow's after one, two and three trainings."""
    counts = []
    for _ in range(3):
        with horovod.joined(WORLD, backend) as group:
            result_of(problem_of(num_epochs=1), group)
        gc.collect()
        counts.append(sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects()))
    return counts


def ends_alike(backend):
    """Stop trainings early, each time because of something that only one rank knows."""
    found = {}

    def counting(problem):
        batches = []
        problem.augment(lambda x, y: (time.sleep(0.1 * RANK), batches.append(len(x)), (x, y))[-1])
        return batches

    with horovod.joined(WORLD, backend) as group:
        problem = problem_of(num_epochs=9, callbacks={"TimeStopping": {"seconds": 1.5}})
        batches = counting(problem)
        found["time"] = {"epochs": result_of(problem, group)["epochs"], "batches": len(batches)}
        leader, members = (lambda: RANK == 0), (lambda: RANK != 0)
        problem = problem_of(num_epochs=3)
        for name, should_stop in (("leader", leader), ("members", members)):
            found[name] = result_of(problem, group, should_stop=should_stop)["epochs"]
        problem = problem_of(
            num_epochs=9, callbacks={"EarlyStopping": {"monitor": "val_r2", "patience": 1, "min_delta": 9}}
        )
        found["early"] = result_of(problem, group)
    return found


def gives_up(backend):
    """Have one rank raise in mid-training, then train again."""
    found = {}
    for culprit in (1, 0):
        problem = problem_of(num_epochs=3)
        calls = []

        def fragile(x, y, calls=calls, culprit=culprit):
            calls.append(1)
            if culprit == RANK and len(calls) == 6:
                raise RuntimeError("no\nmore")
            return x, y

        problem.augment(fragile)
        try:
            with horovod.joined(WORLD, backend) as group:
                result_of(problem, group)
        except Exception as error:
            found[f"culprit_{culprit}"] = [type(error).__name__, str(error)]
    try:
        with horovod.joined(WORLD, backend) as group:
            result_of(problem_of(objective=lambda history: math.nan), group)
    except Exception as error:
        found["diverged"] = [type(error).__name__, str(error)]
    try:
        with horovod.joined(WORLD, backend) as group:
            if RANK == SIZE - 1:
                raise KeyError("late")  # the others are through
    except Exception as error:
        found["late"] = [type(error).__name__, str(error)]
    with horovod.joined(WORLD, backend) as group:
        found["again"] = result_of(problem_of(num_epochs=1), group)["epochs"]
    return found


def the_run_function(backend):
    """Run as in an evaluation; the members have other ideas of seed and configuration."""
    directory = Path(tempfile.mkdtemp(prefix=f"rank-{RANK}-"))
    reports = []
    context = TrialContext(
        5, 0, 7 + RANK, str(directory), report=lambda *report: reports.append(report), problem=f"{__file__}:Problem",
        comm=WORLD, watched=RANK == 0,
    )  # fmt: skip
    enter(context)
    horovod.run.prepare()
    result = horovod.run({"arch_seq": [0, 1]} if RANK == 0 else {"arch_seq": [1, 0]}, backend=backend)
    leave()
    files = sorted(path.name for path in directory.iterdir())
    return {"objective": result["objective"], "files": files, "reports": reports}


def changing_groups(backend, n=30):
    """Train in groups that come and go; ranks that are not needed train something else meanwhile."""
    sets = [[0, 1], [1, 2], [0, 1, 2], [0, 2], [2], [1, 2]]
    problem, rows, used = problem_of(num_epochs=1), [], WORLD.Get_group()
    for i in range(n):
        ranks = sets[i % len(sets)]
        if RANK not in ranks:
            if i % 4 == 0:
                result_of(problem, ALONE, [0, i % 2])
            continue
        members = used.Incl(ranks)
        comm = WORLD.Create_group(members, tag=i)
        with horovod.joined(comm, backend) as group:
            result = result_of(problem, group, [0, i % 2], directory=None)
        rows.append([i, group.size, result["loss"], result["objective"]])
        comm.Free()
        members.Free()
    return rows


def main():
    backend, *names = sys.argv[1:]
    found = {}
    for name in names:
        name, _, argument = name.partition("=")
        began = time.monotonic()
        found[name] = globals()[name](backend, *(int(argument),) if argument else ())
        WORLD.Barrier()
        if RANK == 0:  # in the end, that is what a launch shows that had not enough time
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    everywhere = WORLD.gather(found)
    if RANK == 0:
        print("FOUND", json.dumps({name: [rank[name] for rank in everywhere] for name in found}))


if __name__ == "__main__":
    assert dhmpi.trial().id is None
    main()

"""All operations of a group's communicator, as a run function."""

import numpy as np


def run(config, comm):
    from mpi4py import MPI

    r, n = comm.rank, comm.size
    everybody = list(range(n))
    assert comm.bcast({"a": r}, 1) == {"a": 1}
    assert comm.allgather(r) == everybody
    assert comm.gather(r, 1) == (everybody if r == 1 else None)
    assert comm.scatter([i * i for i in everybody] if r == 0 else None) == r * r
    assert comm.alltoall([(r, j) for j in everybody]) == [(j, r) for j in everybody]
    assert comm.allreduce(r, MPI.MAX) == n - 1
    assert comm.reduce(r, root=1) == (sum(everybody) if r == 1 else None)
    assert (comm.scan(r), comm.exscan(r)) == (sum(range(r + 1)), sum(range(r)) if r else None)
    assert comm.sendrecv(("hi", r), (r + 1) % n, source=(r - 1) % n) == ("hi", (r - 1) % n)
    comm.barrier()
    if r == 0:
        comm.send("x", 1, tag=3)
        comm.Send(np.arange(4.0), 1, tag=4)
    elif r == 1:
        status, received = MPI.Status(), np.zeros(4)
        assert comm.recv(tag=3, status=status) == "x"
        assert status.Get_source() == 0
        comm.Recv(received, 0, 4)
        assert received[3] == 3
    ones, total, ranks, one = np.ones(3), np.zeros(3), np.zeros(n), np.full(1, float(r))
    comm.Allreduce(ones, total)
    assert (total == n).all()
    comm.Allreduce(MPI.IN_PLACE, total)
    assert (total == n * n).all()
    comm.Allgather(one, ranks)
    assert (ranks == everybody).all()
    comm.Bcast(ranks, root=1)
    comm.Sendrecv(one, (r + 1) % n, recvbuf=(received := np.zeros(1)), source=(r - 1) % n)
    assert received[0] == (r - 1) % n
    comm.Reduce(one, received if r == 0 else None, root=0)
    assert r or received[0] == sum(everybody)
    halves = comm.Split(r % 2)
    assert halves.size in (n // 2, n - n // 2)
    halves.Free()
    return float(config["x"])

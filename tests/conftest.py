"""What holds for all tests: one thread for numerical libraries, and what is spread over the workers of pytest-xdist."""

import os

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before anything imports numpy

LAUNCHES = "tests/mpi/"
WHOLE = (
    "test_together.py",
    "test_hosts.py",
)
"""Files of launches whose tests cannot run at the same time, or share launches."""


def group_of(nodeid, root):
    """Return the name of what a test shares a worker with.

    Launches are spread one by one, other files stay whole, and those with TensorFlow are imported by one worker only.
    """
    file = nodeid.partition("::")[0]
    if file.startswith(LAUNCHES) and not file.endswith(WHOLE):
        return nodeid
    if not file.startswith(LAUNCHES) and "pytest.mark.tensorflow" in (root / file).read_text():
        return "tensorflow"
    return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Spread tests by `group_of`.

    (``--dist loadgroup`` writes groups into an attribute that pytest no longer reads: its tests go anywhere.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid, config.rootpath)

    return ByGroup(config, log)

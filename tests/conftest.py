"""Settings that hold for every test, and the simulators that several files drive by hand."""

import signal

import pytest
from hypothesis import settings

from bench_by_hand import LAB
from tlbcore.simulator import Simulator

# The same examples every time: a failure that comes and goes with the machine's load or with luck helps nobody.
settings.register_profile("tlbcore", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tlbcore")

# A shell that starts the tests in the background hands SIGINT down as ignored, and Python leaves it so: every test of Ctrl-C
# would wait for nothing. A handler is reset to the default in the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["core", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """The machine to drive."""
    name: str = request.param
    return name


@pytest.fixture
def lab(backend: str) -> Simulator:
    """The lab's machine with its kernel."""
    return Simulator(LAB, "linux-6.1", backend=backend)

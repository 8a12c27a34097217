"""How the threads of OpenMP wait for each other on a machine that others use, too."""

import os

# turns of a loop, 0.1 ms. libgomp's own 300,000 take 4 ms: the thread that is waited for lacks the core.
_SPINS = "2000"


def wait_briefly() -> None:
    """Let waiting threads soon leave their core to others, unless the environment says how they wait.

    To be called before torch is imported: libgomp reads it once. Child processes inherit it.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS

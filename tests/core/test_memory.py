import pytest

from core.memory import ran_out, shortage

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 1 has a total capacity of 79.10 GiB of "
    "which 5.02 GiB is free. Process 7 has 74.08 GiB memory in use."
)
LINUX = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4096000000 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 512 bytes."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(CUDA), "the memory of GPU 1 (79.10 GiB) did not hold 20.00 GiB"),
        (RuntimeError(LINUX), "the memory of this machine did not hold 4096000000 bytes"),
        (RuntimeError(WINDOWS), "the memory of this machine did not hold 512 bytes"),
        (RuntimeError("CUDA error: out of memory"), "the memory of the GPU did not hold it all"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "the memory of the GPU"),
        (MemoryError(), "the memory of this machine did not hold it all"),
    ],
)
def test_what_did_not_suffice_is_named(error, told):
    assert ran_out(error)
    assert shortage(error).startswith(told)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError("out of memory")])
def test_other_errors_are_none_of_memory(error):
    assert not ran_out(error)

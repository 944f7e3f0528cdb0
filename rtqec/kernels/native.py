"""What compiled code calls directly: libzmq, datagram sockets, the clock, the scheduler, and memory order.

numba resolves an `ExternalFunction` by name when it links, also from its cache, so compiled loops hold no address of
this process. libzmq's symbols come from the library that pyzmq carries.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
import numpy as np
import zmq
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from zmq.backend.cython import _zmq

Function = TypeVar("Function", bound=Callable[..., Any])


def _digest_of_kernels() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[2].glob("*/kernels/*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _keep_compiled_code_with_its_sources() -> None:
    """Let numba's cache forget a loop when any kernel changes, not only the file that the loop stands in.

    numba compares the time of one file; a loop that calls into another file would go on with the old code of that one.
    """
    folder = Path(__file__).parent / "__pycache__"
    if os.access(folder.parent, os.W_OK):
        folder.mkdir(exist_ok=True)
    if numba.config.CACHE_DIR or not os.access(folder, os.W_OK):
        return  # Somebody chose another place, or an installed package, whose files never change one by one.
    numba.config.CACHE_DIR = str(folder / f"numba-{_digest_of_kernels()}")


_keep_compiled_code_with_its_sources()


def compiled(function: Function) -> Function:
    """numba's `njit` with this project's policy: no GIL, cached on disk, no bounds checks, C division, no allocation.

    Whatever calls another of these functions has it in its own body (`forceinline`): LLVM leaves large ones as calls,
    which copy each array that they are given, seven words. Ingesting a message took 430 ns, and takes 85; choosing a
    window takes a fifth less; compiling everything once takes 35 s instead of 25 (2 cores of an EPYC, 2026-11-21).

    Without numba's reference counting (`_nrt`) a loop that would allocate does not compile, and calls that pass arrays
    on cost no atomic operations: gathering a window took 2.4 us instead of 3.1 (2 cores of an EPYC, 2026-11-20).
    """
    decorate = numba.njit(nogil=True, cache=True, error_model="numpy", _nrt=False, forceinline=True)
    return cast(Function, decorate(function))


def entry_of(function: Function, *args: Any) -> Callable[..., Any]:
    """A compiled function for arguments of these types, without numba's look at the arguments of every call.

    numba finds out the type of each argument anew: 65 ns for an array of records, 1 us for a call with sixteen; the
    entry itself takes 8 ns each (2 cores of an EPYC, 2026-11-20). Whoever calls it passes what it was made for: nothing
    is checked.
    """
    dispatcher = cast(Any, function)
    types_of = tuple(numba.typeof(arg) for arg in args)
    dispatcher.compile(types_of)
    return cast(Callable[..., Any], dispatcher.overloads[types_of].entry_point)


@contextmanager
def compiling_alone() -> Iterator[None]:
    """Let one process at a time compile the kernels, until all have been compiled for this machine once.

    Lanes start side by side; the first time each of them would compile everything, 35 s of a core.
    """
    folder = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else None
    if folder is None or not (folder.is_dir() or os.access(folder.parent, os.W_OK)):
        yield
        return
    folder.mkdir(exist_ok=True)
    python = f"{sys.version_info[0]}{sys.version_info[1]}"
    version = f"{python}-{llvm.get_host_cpu_name()}-{numba.__version__}-{_digest_of_kernels()}"
    done = folder / f"compiled-{version}"
    if done.exists() or not os.access(folder, os.W_OK):
        yield
        return
    with (folder / f"compiling-{version}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        done.touch()


_LIBZMQ = ctypes.CDLL(_zmq.__file__)
for _name in ("zmq_recv", "zmq_send"):
    llvm.add_symbol(f"rtqec_{_name}", ctypes.cast(getattr(_LIBZMQ, _name), ctypes.c_void_p).value)

zmq_recv = types.ExternalFunction("rtqec_zmq_recv", types.int32(types.uintp, types.uintp, types.uintp, types.int32))
zmq_send = types.ExternalFunction("rtqec_zmq_send", types.int32(types.uintp, types.uintp, types.uintp, types.int32))
sched_yield = types.ExternalFunction("sched_yield", types.int32())
poll = types.ExternalFunction("poll", types.int32(types.uintp, types.uintp, types.int32))
recvfrom = types.ExternalFunction(
    "recvfrom", types.int64(types.int32, types.uintp, types.uintp, types.int32, types.uintp, types.uintp)
)
sendto = types.ExternalFunction(
    "sendto", types.int64(types.int32, types.uintp, types.uintp, types.int32, types.uintp, types.uint32)
)
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))
_clock_nanosleep = types.ExternalFunction(
    "clock_nanosleep", types.int32(types.int32, types.int32, types.uintp, types.uintp)
)
_syscall = types.ExternalFunction(
    "syscall",
    types.int64(types.int64, types.uintp, types.int64, types.int64, types.uintp, types.uintp, types.int64),
)

DONTWAIT = int(zmq.DONTWAIT)
_CLOCK_MONOTONIC = 1
_PR_SET_TIMERSLACK = 29
_TIMER_ABSTIME = 1
_FUTEX_WAIT = 0
_FUTEX_WAKE = 1
# The syscall's number, from the kernel's tables; both machines are 64-bit and little-endian.
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}[platform.machine()]
_NS_PER_S = 1_000_000_000


def timespec() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Room for one `struct timespec`: int64, shape (2,). Each thread owns one."""
    return np.zeros(2, np.int64)


@compiled
def now_ns(spec: Any) -> Any:
    """CLOCK_MONOTONIC in ns, through the caller's `timespec`."""
    _clock_gettime(_CLOCK_MONOTONIC, spec.ctypes.data)
    return spec[0] * _NS_PER_S + spec[1]


@compiled
def sleep_until(deadline_ns: Any, spec: Any) -> Any:
    """Sleep until CLOCK_MONOTONIC reads `deadline_ns`."""
    spec[0] = deadline_ns // _NS_PER_S
    spec[1] = deadline_ns % _NS_PER_S
    _clock_nanosleep(_CLOCK_MONOTONIC, _TIMER_ABSTIME, spec.ctypes.data, 0)


@compiled
def futex_wait(word: Any, expected: Any, timeout_ns: Any, spec: Any) -> Any:
    """Sleep while `word[0] == expected` (uint32), at most `timeout_ns`. Other processes may share the word."""
    spec[0] = timeout_ns // _NS_PER_S
    spec[1] = timeout_ns % _NS_PER_S
    _syscall(_SYS_FUTEX, word.ctypes.data, _FUTEX_WAIT, np.int64(expected), spec.ctypes.data, 0, 0)


@compiled
def futex_wake(word: Any) -> Any:
    """Wake the thread that sleeps on `word`."""
    _syscall(_SYS_FUTEX, word.ctypes.data, _FUTEX_WAKE, 1, 0, 0, 0)


def precise_timers() -> None:
    """Let this thread's sleeps end when they should, not up to the default 50 us later."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


def _item_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, [args[1]], wraparound=False)


def _align(array_type: Any) -> int:
    return int(array_type.dtype.bitwidth // 8)


@intrinsic
def load_acquire(_typing: Any, array: Any, _index: Any) -> Any:
    """`array[index]`, before everything that follows. An ordinary load in a wait loop would be hoisted."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _item_pointer(context, builder, signature, args)
        return builder.load_atomic(pointer, "seq_cst", _align(signature.args[0]))

    return array.dtype(array, types.intp), generate


@intrinsic
def store_release(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
    """`array[index] = value`, after everything before it.

    Sequentially consistent, so that "publish, then look whether the other side sleeps" cannot be reordered.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _item_pointer(context, builder, signature, args)
        value = context.cast(builder, args[2], signature.args[2], signature.args[0].dtype)
        builder.store_atomic(value, pointer, "seq_cst", _align(signature.args[0]))
        return context.get_dummy_value()

    return types.none(array, types.intp, array.dtype), generate


@intrinsic
def fetch_add(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
    """`array[index] += value` as one step; the old value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _item_pointer(context, builder, signature, args)
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return array.dtype(array, types.intp, array.dtype), generate

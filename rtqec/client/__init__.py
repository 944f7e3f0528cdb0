"""Talk to a running daemon: open a patch, send rounds, await corrections, ask how it is.

`Client` and `AsyncClient` speak rtqec's own wire over ZeroMQ; `CudaqClient` and `AsyncCudaqClient` the frames of CUDA-Q
Realtime over UDP. Nothing else is imported than pyzmq, numpy and msgpack, so that a controller need not install what
decodes.
"""

from rtqec.client.asynchronous import AsyncClient, AsyncPatch
from rtqec.client.blocking import Client, Patch
from rtqec.client.control import Frame, LaneStatus, PatchStatus, RefusedError, Status
from rtqec.client.conversation import CudaqStatusError
from rtqec.client.cudaq_udp import AsyncCudaqClient, CudaqClient
from rtqec.client.keys import Keys
from rtqec.client.messages import Correction, RoundsEncoder
from rtqec.cudaq.frames import Status as CudaqStatus

__all__ = [
    "AsyncClient", "AsyncCudaqClient", "AsyncPatch", "Client", "Correction", "CudaqClient", "CudaqStatus",
    "CudaqStatusError", "Frame", "Keys", "LaneStatus", "Patch", "PatchStatus", "RefusedError", "RoundsEncoder",
    "Status",
]  # fmt: skip

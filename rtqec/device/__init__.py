"""What runs a network: engines behind one interface. The only place that knows OpenVINO, TensorRT, CuPy and CUDA.

`engine` is the interface with the engines that need nothing; each other engine has a file of its own and imports its
library when it is asked for. `chunks` is what the path calls: packed rounds in, packed changes out; around an engine on
the host, or all of it on a GPU (`gpu_chunks`). None of them is needed to install, run or test the daemon.
"""

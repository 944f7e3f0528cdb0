"""CUDA-Q programs as controllers: the wire of CUDA-Q's decoding server, and the decoders that it names.

`frames` says what requests and answers look like, `decoder` what a decoder is and how it becomes a plan, `sessions`
what the daemon keeps of each, `listener` serves them. What happens with a request is compiled: `kernels.datagrams`.
"""

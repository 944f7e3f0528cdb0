"""CUDA-Q programs as controllers: the wire of CUDA-Q's decoding server, the decoders it names, and its files.

`frames` says what requests and answers look like, `sessions` what the daemon keeps of each decoder, `listener` serves
them; what happens with a request is compiled: `kernels.datagrams`. `decoder` says what a decoder is: `decoder_file` and
`decoder_model` read one from CUDA-Q's configuration, `plan_decoder` and `decoder_writer` make one of a plan and write
it. `syndromes` and `bundle` are recorded shots and matrices.

Nothing here needs CUDA-Q. Facts were read from NVIDIA's public sources, and those of files checked against cudaq-qec
0.8.1.
"""

"""What CUDA-Q and rtqec have in common: decoder files, syndromes, bundles of matrices.

Nothing here needs CUDA-Q. Facts of the formats were read from NVIDIA's public sources and checked against cudaq-qec
0.8.1.
"""

"""Tests of engines on a GPU: on a real one where there is one, on a pretended one everywhere."""

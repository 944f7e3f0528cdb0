"""Benchmarks: run by hand, recorded in `results` with machine and date. Never part of the tests."""

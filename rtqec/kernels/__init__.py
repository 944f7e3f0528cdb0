"""Compiled code: free functions on arrays, short, each with a slow and obvious twin in the tests."""

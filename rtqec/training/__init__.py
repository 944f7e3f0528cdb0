"""Training networks: the only door to PyTorch (extra `train`). `rtqec train` runs it; the daemon never imports it."""

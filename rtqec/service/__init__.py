"""The service around the lanes: supervisor, control, metrics, keys, audit log, and what reads a running daemon."""

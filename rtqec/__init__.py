"""rtqec: an endless stream of syndrome rounds in, Pauli-frame corrections out.

The top folder reads as the path of a round: `feed`, `ring`, `window`, `match`, `commit`, `publish`, in the order
that `pipeline` gives them. The words are in GLOSSARY.md, the threads and shared fields in ARCHITECTURE.md.
"""

__version__ = "0.1.0"

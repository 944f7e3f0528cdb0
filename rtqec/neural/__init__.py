"""What is derived once for the neural predecoder: where detectors lie on the network's grid, what errors do there,
labels to learn from, the networks' shapes and weights, and the card that says what a model is worth.

`code` is the rotated surface code in one frame, `layout` puts a circuit's detectors into it, `effects` says what each
cell's answer does to detectors and observables, `labels` and `sampling` make what networks are trained on.
"""

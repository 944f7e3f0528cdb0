"""Tests of rtqec and firmware_sim; each opens with its invariant."""

"""The simulator's compiled loops: one that sends by the clock, one that receives corrections."""

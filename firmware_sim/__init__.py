"""firmware_sim: the controller that is not there.

Sends syndrome rounds as an FPGA would, by the clock and never waiting for the daemon, and checks every correction
that comes back. It shares with rtqec the words, the wire and the plan, and nothing of the path.
"""

"""Other decoders, each behind one small interface, imported only when it is asked for."""

"""The command line, `medsam`."""

"""The command `curate`."""

"""Codecs: one file for each family of networks, ours and published ones."""

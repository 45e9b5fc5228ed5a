"""Quantisers: from vectors to ids and back, each by a written formula (law 8). Inference alone."""

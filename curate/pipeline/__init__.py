"""Stages on Ray: one streaming plan before decisions, one after, and what ends a run."""

import os

# read when Ray is imported: it is started by `cluster.Cluster` alone, never by the first call that would need it
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

__all__ = ["causes", "cluster", "error_location", "json_console", "nodes", "plan", "progress", "run"]

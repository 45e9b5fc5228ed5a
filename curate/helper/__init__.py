"""Helper processes: native code that works on media from the open web runs where it can die (law 10).

A worker keeps one helper a kind of work: a child that is started once, serves many calls, is stopped at its limits of
time and memory, and is started again when it dies. What it answers is checked like any other input: a codec that was
taken over by a file speaks through it.
"""

__all__ = ["errors", "limits", "process", "quarantine"]

"""Raw web media in, aligned discrete token shards out.

    import curate

    build = curate.run("my.yaml", "build/mine")
    for sample in curate.stream("build/mine"):
        sample["tok_rgb@256"]  # uint16 (frames, 32, 32)

`run` makes a build, `open` looks at a finished one; `stream`, `packed`, `bucketed`, `mix`, `join` and the views are for
trainers. The command `curate` does the same and more; see `curate --help`. What else may be called is said by each
room's `__all__`; docs/architecture.md says which room is which.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api import Build, run
    from curate.api import open_build as open
    from curate.shards.bucketed import bucketed
    from curate.shards.join import join
    from curate.shards.mix import mix
    from curate.shards.packed import packed
    from curate.shards.stream import stream
    from curate.shards.views import MaskedView, RawView, SampleView, SequenceView, Task

__all__ = [
    "Build",
    "MaskedView",
    "RawView",
    "SampleView",
    "SequenceView",
    "Task",
    "bucketed",
    "join",
    "mix",
    "open",
    "packed",
    "run",
    "stream",
]

_WHERE = {
    "Build": "api:Build",
    "bucketed": "shards.bucketed:bucketed",
    "join": "shards.join:join",
    "mix": "shards.mix:mix",
    "packed": "shards.packed:packed",
    "open": "api:open_build",
    "run": "api:run",
    "stream": "shards.stream:stream",
}


def __getattr__(name: str) -> Any:
    # `import curate` stays cheap: workers import it thousands of times
    if name not in __all__:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    module, _, attribute = _WHERE.get(name, f"shards.views:{name}").partition(":")
    return getattr(import_module(f"curate.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__

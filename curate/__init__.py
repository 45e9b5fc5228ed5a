"""Raw web media in, aligned discrete token shards out.

    import curate

    for sample in curate.stream("build/quickstart"):
        sample["tok_rgb@256"]  # uint16 (frames, 32, 32)

Everything else is the command `curate`; see `curate --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.shards.stream import stream
    from curate.shards.views import MaskedView, RawView, SequenceView

__all__ = ["MaskedView", "RawView", "SequenceView", "stream"]


def __getattr__(name: str) -> Any:
    # `import curate` stays cheap: workers import it thousands of times
    if name == "stream":
        from curate.shards.stream import stream

        return stream
    if name in __all__:
        from curate.shards import views

        return getattr(views, name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")

"""A view: the caption as text and the image's ids as one row, as a text-to-image trainer takes them."""

from typing import Any

from curate.schema.manifest import Manifest
from curate.shards.views import Bound, SampleView
from curate.tokenizers import zoo


class TextToImage(SampleView):
    """`{"text": str or None, "ids": uint16 (n,) or None}`; ids are those of the middle frame."""

    only = ("caption", "tok_rgb@256")

    def bind(self, manifest: Manifest) -> Bound:
        stream = next(stream for stream in manifest.streams if stream.name == "caption")
        self.words = zoo.of_card(manifest.codecs[stream.tokenizer])
        return super().bind(manifest)

    def one(self, sample: dict[str, Any]) -> dict[str, Any]:
        caption, image = sample["caption"], sample["tok_rgb@256"]
        return {
            "text": None if caption is None else self.words.decode([caption])[0],
            "ids": None if image is None else image[len(image) // 2].ravel(),
        }

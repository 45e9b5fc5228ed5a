"""What every card says of the way from media to what its tokenizer takes: it is the same for all (`curate.media`)."""

from __future__ import annotations

from curate.media.arrays import MAX_BYTES
from curate.media.audio import MAX_SPAN_SECONDS
from curate.media.images import MAX_PIXELS

IMAGE_INPUT = (
    ". To get there: the first frame of an animation, EXIF orientation, palettes and 1 bit expanded, grey in three "
    "channels, the top 8 of 16 bits, ICC profiles and CMYK to sRGB, alpha over white, pixels of video that are not "
    "square stretched, Lanczos, which enlarges what is smaller. Failed with the reason: samples in floating point, "
    f"more than {MAX_PIXELS} pixels, damaged or cut files"
)
"""For tokenizers of images and of video (`images.decode_image`, `images.render`)."""

AUDIO_INPUT = (
    ". To get there: mono after ITU-R BS.775 without LFE (of stereo the mean), libswresample, 16 bits, clipped. Failed "
    f"with the reason: samples that are not finite, more than {MAX_SPAN_SECONDS} s at once, damaged or cut files. A "
    "sound of no samples has no ids"
)
"""For tokenizers of audio (`audio.read_audio`)."""

ARRAY_INPUT = (
    ". To get there: `.npy` of numbers, in the machine's byte order, never unpickled. Failed with the reason: another "
    f"shape or dtype, values that are not finite, more than {MAX_BYTES} bytes, damaged or cut files"
)
"""For tokenizers of arrays (`arrays.read_array`)."""

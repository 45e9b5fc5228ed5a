"""How the tokenizers of the zoo are trained: media and corpora, losses, one loop, and the card at the end."""

__all__ = ["audio", "image", "image_card", "text", "video", "video_card"]

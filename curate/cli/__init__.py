"""The command `curate`: one file a subcommand that has more than a few lines; `main` puts them together."""

__all__ = ["main"]

"""Published tokenizers, one file an architecture: `adopt` makes a folder of the zoo from weights, `load` reads it."""

"""`python benchmarks/tokenize.py`: what is left of a tokenizer's bare forward pass; see `token_speed.py`."""

import importlib.util
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    from token_speed import main

    main()
else:  # a script of this folder means the standard library's module, which this file hides from it
    real = importlib.util.spec_from_file_location("tokenize", Path(os.__file__).parent / "tokenize.py")
    assert real is not None
    assert real.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(real)
    real.loader.exec_module(sys.modules[__name__])

"""FAISS on one thread, for sums whose order does not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Runs FAISS, and the BLAS inside it, single-threaded for bit-reproducible reductions."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

"""4M-21's text-like streams with writer and parser, their vocabularies, and crops.

Source: Bachmann et al. 2024, "4M-21" (arXiv 2406.09406, appendix D), and the code apple/ml-4m at cda590f. Where the
two differ, the code is followed, and the module says so.
"""

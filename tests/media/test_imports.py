"""The room is cheap to import: planners and the command line do it without decoding anything."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys, importlib\n"
        "room = 'audio clips container decode decord_reader encode guarded images '\n"
        "room += 'cropping probe reader shots sniff video requests'\n"
        "for m in room.split():\n"
        "    importlib.import_module(f'curate.media.{m}')\n"
        "print(sorted(m for m in ('av', 'PIL', 'cv2', 'decord', 'scenedetect', 'torch', 'ray') if m in sys.modules))\n"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[]"

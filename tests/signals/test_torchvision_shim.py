import subprocess
import sys

CODE = """
from curate.models import torchvision_shim as shim
try:
    import torchvision
    broken = False
except RuntimeError as exc:
    broken = "operator torchvision::nms does not exist" in str(exc)
shim.ensure_torchvision()
shim.ensure_torchvision()
import torchvision.transforms
import torchvision.ops
print(broken == (shim._library is not None))
"""


def test_torchvision_imports_and_operators_are_declared_only_where_it_fails_without_them():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr

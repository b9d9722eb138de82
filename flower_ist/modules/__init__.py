"""Any torch module: derive its hidden widths, prove them, make it as narrow as a slice."""

from importlib.util import find_spec

from flower_ist.errors import FlowerIstError

if find_spec("torch") is None:
    raise FlowerIstError("Your own module needs torch: pip install 'flower-ist[torch]'.")

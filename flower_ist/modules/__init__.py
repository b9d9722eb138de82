"""Any torch module: derive its hidden widths, prove them, make it as narrow as a slice."""

"""The recipe in one small loop, and the ideas beside it that ``benchmarks/tried.py`` measures."""

"""Runs ``python -m data_prep``."""

from data_prep.cli import app

if __name__ == "__main__":
    app(prog_name="python -m data_prep")

"""Runs ``python -m data_prep``."""

from data_prep.commands.app import app

if __name__ == "__main__":
    app(prog_name="python -m data_prep")

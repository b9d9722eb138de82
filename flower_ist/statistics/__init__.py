"""Summed class statistics, and what follows from them: closed-form heads and the token prior."""

"""A secured federation on loopback, made of real processes, and those who want to harm it."""

"""All that Flower sends to the server and to every device for a run; their library does the work.

Flower sends its bundle anew for each run and does not compress it. So the bundle is this folder,
the license and pyproject.toml with the settings, and what runs is the flower-ist that was installed
there once.
"""

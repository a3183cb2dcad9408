"""Sources of downloads, one a module: `SETTINGS` and `make_kind(settings)`, as `../source.py` says.

A module here is found by being here; nothing else names it.
"""

"""Sources of downloads, one a module: `SETTINGS` and `make_kind(settings)`, as in `../source.py`.

A module here is found by being here; nothing else names it.
"""

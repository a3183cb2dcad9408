"""The page at /ui: files in `static/` that ask our public endpoints, and the rows that serve them.

It translates nothing and has no endpoint of its own. The files are plain HTML, CSS and ES modules,
served as they lie there.
"""

"""Downloads: from a source on the web into a folder, resumed and verified.

`fetch.py` is the way in, `source.py` reads what a user names as the source, and each kind of source
is one module of `sources/`. Only `http.py` and `failures.py` use httpx. Nothing here knows what is
in a file.
"""

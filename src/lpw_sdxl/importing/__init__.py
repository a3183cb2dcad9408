"""The import of a checkpoint or an add-on: acquire the file, verify it, publish it.

`acquire.py` goes from SOURCE to an opened file, `entry.py` from there to an entry of the store.
What differs between the kinds is an `Importer`: `checkpoints.py` and `addons.py`.
"""

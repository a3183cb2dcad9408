"""The demo model: how its pictures are drawn, how it is trained, and how its pictures are judged.

Nothing here is part of the service; `model_import.py demo` imports the file that `train.py` made.
"""

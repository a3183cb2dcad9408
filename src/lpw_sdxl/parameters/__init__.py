"""A1111's `parameters` texts and the pictures that hold them, read as requests; no torch.

Text to `WrittenParameters`, which is still in its author's words, to a `Translation`: a request and
all that it can't honour. What the layout has is known from what programs write and show.
"""

from lpw_sdxl.parameters.draft import NotHonoured
from lpw_sdxl.parameters.offered import Offered
from lpw_sdxl.parameters.picture_reader import read_picture
from lpw_sdxl.parameters.text_reader import read_text
from lpw_sdxl.parameters.translation import Translation, to_request
from lpw_sdxl.parameters.written import Pair, WrittenParameters

__all__ = [
    "NotHonoured",
    "Offered",
    "Pair",
    "Translation",
    "WrittenParameters",
    "read_picture",
    "read_text",
    "to_request",
]

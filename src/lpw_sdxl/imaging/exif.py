"""What all readers of an Exif block share."""

PREFIX = b"Exif\0\0"  # a JPEG has it before the block; other files may
ENTRY_BYTES = 12  # of a directory

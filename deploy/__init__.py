"""Images and clusters; no part of the package."""

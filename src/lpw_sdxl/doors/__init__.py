"""Other programs' APIs as translations of ours, and the page; LPW_SDXL_DOORS switches them."""

"""Other programs' APIs as translations of ours, and the page: folders, switched by LPW_SDXL_DOORS."""

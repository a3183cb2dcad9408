"""Other programs' APIs as translations of ours: a folder for each, switched by LPW_SDXL_DOORS."""

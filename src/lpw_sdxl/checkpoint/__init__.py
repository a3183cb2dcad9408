"""Single-file SDXL checkpoints: read, recognised, converted, verified and kept in the model store."""

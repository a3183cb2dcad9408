"""Single-file SDXL checkpoints: recognised, converted, verified and kept in the model store."""

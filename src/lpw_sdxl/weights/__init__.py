"""Safetensors files: headers, dtypes, tensors, a writer; knows nothing of what a file is for."""

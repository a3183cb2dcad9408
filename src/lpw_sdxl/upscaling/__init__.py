"""Upscaler models: networks that make a picture larger; they know no requests and no jobs."""

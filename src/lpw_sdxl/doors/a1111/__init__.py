"""AUTOMATIC1111's API, which Forge has too: its requests become ours, our images its answers.

A translation and nothing else: what is drawn is a `GenerationRequest`, in A1111's dialect of
prompts, with its samplers, its noise and its defaults. Its clients are loose, so what is unknown is
ignored; what would be another picture is refused.
"""

"""OpenAI's API of images: its requests become ours, our images become its answers.

A translation and nothing else: what is drawn is a `GenerationRequest`. Its clients are loose, so
what is unknown is ignored and stated in the answer; what would be another picture is refused.
"""

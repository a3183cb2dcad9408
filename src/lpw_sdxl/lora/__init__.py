"""LoRAs: what a file holds, what a request asks of them, and what they add to a model's weights."""

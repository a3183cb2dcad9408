"""From a conditioning to pixels: the model's parts, one step of a group, one decode."""

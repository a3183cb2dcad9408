"""What lies between the products of SDXL's networks, each in one pass over memory.

`operations.py` names the operations, `plain.py` has them in plain torch, and `triton_operations.py`
as Triton's kernels of the modules beside it, which a test holds to the plain ones. They know
nothing of layers' order: `diffusion/fused_unet.py` and `diffusion/fused_vae.py` do.

Every reduction is within one row of a call, and cut into the same pieces whatever the number of
rows, so that a row's numbers do not depend on the others.
"""

"""Two tiny CLIP text encoders whose weights any machine can rebuild, for the golden embeddings."""

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

COMMON = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
ENCODER_1 = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "hidden_act": "quick_gelu",
    **COMMON,
}
ENCODER_2 = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "projection_dim": 48,
    "hidden_act": "gelu",
    **COMMON,
}


def fill(model, seed):
    """Overwrite every parameter, by name without 'text_model.', from one CPU generator."""
    generator = torch.Generator().manual_seed(seed)
    named = sorted((name.removeprefix("text_model."), p) for name, p in model.named_parameters())
    with torch.no_grad():
        for name, p in named:
            noise = torch.randn(p.shape, generator=generator)
            if "layer_norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif "embedding" in name:
                p.copy_(0.5 * noise)
            else:
                p.copy_(0.2 * noise)
    return model.eval()


def build():
    return (
        fill(CLIPTextModel(CLIPTextConfig(**ENCODER_1)), 1),
        fill(CLIPTextModelWithProjection(CLIPTextConfig(**ENCODER_2)), 2),
    )

"""A tiny SDXL text half: real tokenizers, two encoders with 32 and 48 features."""

import importlib.util
from pathlib import Path

import pytest

from lpw_sdxl.checkpoint.tokenizer_files import write_tokenizer
from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
PAD_TOKENS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


@pytest.fixture(scope="session")
def golden_directory():
    return GOLDEN


@pytest.fixture(scope="session")
def text_models():
    """The two text models, as (name in a model directory, model)."""
    spec = importlib.util.spec_from_file_location("tiny_encoders", GOLDEN / "tiny_encoders.py")
    tiny_encoders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_encoders)
    return dict(zip(("text_encoder", "text_encoder_2"), tiny_encoders.build(), strict=True))


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory, text_models):
    root = tmp_path_factory.mktemp("model")
    for name, model in text_models.items():
        model.save_pretrained(root / name)
    for name, pad_token in PAD_TOKENS.items():
        write_tokenizer(root / name, pad_token=pad_token)
    return root


@pytest.fixture(scope="session")
def encoder(model_directory):
    """Without a cache, so that what is compared was really encoded twice."""
    return PromptEncoder.from_model_directory(model_directory, cache_bytes=0)


@pytest.fixture
def caching_encoder(encoder):
    """The same encoders, with an empty cache."""
    return PromptEncoder(encoder._encoders, cache_bytes=2**24)


@pytest.fixture(scope="session")
def tokenizer(model_directory):
    return ClipTokenizer.from_directory(model_directory / "tokenizer")

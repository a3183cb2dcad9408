"""`python -m lpw_sdxl.prompt`: the explanation without a model."""

import io
import json
import resource
import subprocess
import sys
from dataclasses import asdict

import pytest

from lpw_sdxl.conditioning.__main__ import main

PROMPT = r"a (red:1.3) fox BREAK \(snow\)<lora:x:0.5>, (猫"
COMMAND = [sys.executable, "-m", "lpw_sdxl.prompt"]


def test_weights_tokens_chunks_tags_and_warnings_are_printed(capsys):
    assert main([PROMPT, "--negative-prompt", "blurry"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "style lpw",
        "",
        "prompt: 9 and 9 tokens for the two text encoders, 2 chunk(s)",
        '0-2             1  "a "',
        '3-6           1.3  "red"',
        '11-15            1  " fox"',
        "16-21               BREAK",
        '22-30            1  "(snow)"',
        '30-42          0.5  LoRA "x"',
        '42-44            1  ", "',
        '45-46          1.1  "猫"',
        "chunk 1: 3 tokens in 77 positions",
        '0-15               "a red fox"',
        "chunk 2: 6 tokens in 8 positions, gives the pooled vector",
        '22-46               "( snow ), 猫"',
        "warning: character 44: an opening bracket is never closed and counts to the end of the"
        " prompt",
        "",
        "negative_prompt: 1 and 1 tokens for the two text encoders, 2 chunk(s)",
        '0-6             1  "blurry"',
        "chunk 1: 1 tokens in 77 positions",
        '0-6                "blurry"',
        "chunk 2: 0 tokens in 8 positions, gives the pooled vector",
    ]


def test_a_loras_weight_in_the_text_encoders_is_told_if_it_is_another(capsys):
    assert main(["<lora:x:0.5:2>"]) == 0
    assert '0-14            2  LoRA "x", text encoders 0.5\n' in capsys.readouterr().out


@pytest.mark.parametrize("style", ["lpw", "a1111", "a1111-original", "comfy", "plain"])
def test_json_is_what_the_server_tells(capsys, style, encoder):
    assert main([PROMPT, "--negative-prompt", "(blurry : 1.2)!", "--style", style, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    served = encoder.reader.explain(PROMPT, "(blurry : 1.2)!", style)
    assert told == json.loads(json.dumps(asdict(served)))
    assert told["style"] == style


CHANGING = "a [cat:(dog:1.2):0.4]<lora:x:.5> AND snow :0.6 <hypernet:y>"


def test_with_steps_the_texts_are_shown_by_step_and_one_by_one(capsys):
    assert main([CHANGING, "--style", "a1111", "--steps", "10"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:6] == [
        "style a1111, 10 steps",
        "",
        "prompt:",
        'until step 4    1 "a cat" AND 0.6 " snow"',
        'until step 10   1 "a (dog:1.2)" AND 0.6 " snow"',
        '21-32          0.5  LoRA "x"',
    ]
    assert lines[6].startswith("warning: no image is made of it: the tag at character 47 names")
    assert lines[8:] == [
        'prompt, "a cat": 2 and 2 tokens for the two text encoders, 1 chunk(s)',
        '0-6             1  "a cat"',
        "chunk 1: 2 tokens in 77 positions, gives the pooled vector",
        '0-6                "a cat"',
        "",
        'prompt, "a (dog:1.2)": 2 and 2 tokens for the two text encoders, 1 chunk(s)',
        '0-2             1  "a "',
        '8-11          1.2  "dog"',
        "chunk 1: 2 tokens in 77 positions, gives the pooled vector",
        '0-11               "a dog"',
        "",
        'prompt, " snow": 1 and 1 tokens for the two text encoders, 1 chunk(s)',
        '36-41            1  " snow"',
        "chunk 1: 1 tokens in 77 positions, gives the pooled vector",
        '37-41               "snow"',
        "",
        "negative_prompt:",
        'until step 10   ""',
        "",
        'negative_prompt, "": 0 and 0 tokens for the two text encoders, 1 chunk(s)',
        "chunk 1: 0 tokens in 77 positions, gives the pooled vector",
    ]


def test_with_steps_json_has_the_schedule_and_each_text_with_its_places(capsys):
    arguments = ["a [b|c]", "--negative-prompt", "[d:2]", "--style", "a1111", "--steps", "3"]
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schedule"] == {
        "prompt": [
            {"until_step": step, "parts": [{"text": text, "weight": 1.0}]}
            for step, text in [(1, "a b"), (2, "a c"), (3, "a b")]
        ],
        "negative_prompt": [
            {"until_step": step, "parts": [{"text": text, "weight": 1.0}]}
            for step, text in [(2, ""), (3, "d")]
        ],
    }
    texts = shown["prompt"]["texts"]
    assert [(one["text"], one["runs"]) for one in texts] == [
        ("a b", [[0, 2], [3, 4]]),
        ("a c", [[0, 2], [5, 6]]),
    ]
    assert [one["explanation"]["token_count"] for one in texts] == [2, 2]


def test_in_another_style_the_steps_have_one_text_and_a_warning(capsys):
    assert main(["a [b|c]", "--steps", "4"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[3] == 'until step 4    "a [b|c]"'
    assert lines[4].startswith("warning: character 2: [a:b:when] or [a|b] is read as text")


@pytest.fixture
def encoder(tmp_path):
    """What serves, with text models that are never asked."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from lpw_sdxl.checkpoint.tokenizer_files import write_tokenizer
    from lpw_sdxl.conditioning import PromptEncoder
    from lpw_sdxl.conditioning.clip import ClipTextEncoder
    from lpw_sdxl.conditioning.tokenizer import ClipTokenizer

    config = CLIPTextConfig(
        hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    encoders = []
    for name, pad, model in [
        ("1", "<|endoftext|>", CLIPTextModel(config)),
        ("2", "!", CLIPTextModelWithProjection(config)),
    ]:
        write_tokenizer(tmp_path / name, pad_token=pad)
        encoders.append(ClipTextEncoder(ClipTokenizer.from_directory(tmp_path / name), model))
    return PromptEncoder(encoders)


def test_a_refused_prompt_is_one_sentence_and_exit_status_1(capsys):
    assert main(["a", "--negative-prompt", "secret (b:1000)"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "negative prompt: the weight at character 8 is outside the limit of -100 to 100\n"
    )


def test_a_dash_reads_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("(猫:1.5)\n".encode())))
    assert main(["-", "--style", "comfy", "--json"]) == 0
    spans = json.loads(capsys.readouterr().out)["prompt"]["spans"]
    assert [(span["text"], span["weight"]) for span in spans] == [("猫", 1.5)]


def test_input_that_is_no_utf_8_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    assert main(["-"]) == 1
    assert capsys.readouterr().err.startswith("prompt: character 3 is half of a surrogate pair")


@pytest.mark.parametrize(
    "arguments", [["-", "--negative-prompt", "-"], ["a", "--style", "b"], [], ["a", "--steps", "0"]]
)
def test_arguments_that_make_no_sense_are_exit_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.processes
def test_output_that_knows_no_unicode_gets_escapes():
    done = subprocess.run(
        [*COMMAND, "猫"], env={"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert rb'"\u732b"' in done.stdout


@pytest.mark.processes
def test_it_starts_in_under_a_second_without_torch_and_transformers():
    code = (
        "import sys\n"
        "from lpw_sdxl.prompt.__main__ import main\n"
        "main(['a (cat:1.2)'])\n"
        "sys.exit(bool({'torch', 'transformers', 'bentoml', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert min(_seconds() for _ in range(3)) < 1.0


def _seconds():
    """Measure a start's own seconds of a processor: what else the machine does counts not."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, "a (cat:1.2)"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

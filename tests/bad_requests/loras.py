"""LoRAs, in a request's body and in its prompt's tags."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import GOOD, Bad, item

KNOWN = "; /info lists the known ones (2)."

# fmt: off
CASES: dict[str, list[Bad]] = {
    "LoRAs that are not here": [
        Bad("by name", {"loras": [{"name": "absent"}]}, "loras.0.name", "No LoRA is named 'absent'" + KNOWN),
        Bad("by a misspelt name", {"loras": [{"name": "detial"}]}, "loras.0.name", "No LoRA is named 'detial'; near are 'detail'."),
        Bad("by a path", {"loras": [{"name": "../../etc/passwd"}]}, "loras.0.name", "No LoRA is named '../../etc/passwd'" + KNOWN),
        Bad("by a name with a NUL", {"loras": [{"name": "a\0b"}]}, "loras.0.name", "No LoRA is named 'a\\x00b'" + KNOWN),
        Bad("the second of two", {"loras": [{"name": "detail"}, {"name": "absent"}]}, "loras.1.name", "No LoRA is named 'absent'" + KNOWN),
        Bad("by a tag", {"prompt": "a <lora:absent:1>"}, "prompt", "No LoRA is named 'absent'" + KNOWN),
        Bad("by a misspelt tag", {"prompt": "<lora:detial>"}, "prompt", "No LoRA is named 'detial'; near are 'detail'."),
        Bad("by a path in a tag", {"prompt": "<lora:../x:1>"}, "prompt", "No LoRA is named '../x'" + KNOWN),
        Bad("in an item", item({**GOOD, "loras": [{"name": "absent"}]}), "loras.0.name", "No LoRA is named 'absent'" + KNOWN, status=200),
    ],
    "LoRAs that break a limit": [
        Bad("a name of no characters", {"loras": [{"name": ""}]}, "loras.0.name", "loras.0.name has 0 characters; at least 1 would be right"),
        Bad("a name of 101 characters", {"loras": [{"name": "x" * 101}]}, "loras.0.name", "loras.0.name has 101 characters; at most 100 would be right"),
        Bad("a name that is null", {"loras": [{"name": None}]}, "loras.0.name", "loras.0.name is null; a string would be right"),
        Bad("a weight over 10", {"loras": [{"name": "detail", "weight": 11}]}, "loras.0.weight", "loras.0.weight is 11; at most 10 would be right"),
        Bad("a weight that is a text", {"loras": [{"name": "detail", "weight": "1"}]}, "loras.0.weight", "loras.0.weight is a string; a number would be right"),
        Bad("a weight that is null", {"loras": [{"name": "detail", "weight": None}]}, "loras.0.weight", "loras.0.weight is null; a number would be right"),
        Bad("a weight below -10, for the text encoders", {"loras": [{"name": "detail", "text_encoder_weight": -10.5}]}, "loras.0.text_encoder_weight", "loras.0.text_encoder_weight is -10.5; at least -10 would be right"),
        Bad("a tag's weight over 10", {"prompt": "<lora:detail:11>"}, "prompt", "the weights of the LoRA detail add up to 11; -10 to 10 would be right"),
        Bad("a tag's weight over 10, for the UNet", {"prompt": "<lora:detail:1:11>"}, "prompt", "the weights of the LoRA detail add up to 11; -10 to 10 would be right"),
        Bad("weights that add up", {"loras": [{"name": "detail", "weight": 6}] * 2}, "loras.0.name", "the weights of the LoRA detail add up to 12; -10 to 10 would be right"),
        Bad("weights that add up with a tag's", {"prompt": "<lora:detail:6>", "loras": [{"name": "detail", "weight": 6}]}, "loras.0.name", "the weights of the LoRA detail add up to 12; -10 to 10 would be right"),
        Bad("17 in a list", {"loras": [{"name": "detail"}] * 17}, "loras", "loras has 17 items; at most 16 would be right"),
        Bad("too many different ones", {"loras": [{"name": "detail"}, {"name": "texture"}]}, "loras", "the request uses 2 different LoRAs; at most 1 are accepted here"),
        Bad("too many different tags", {"prompt": "<lora:detail><lora:texture>"}, "prompt", "the request uses 2 different LoRAs; at most 1 are accepted here"),
        Bad("a tag in a negative prompt", {"negative_prompt": "a <lora:detail:1>"}, "negative_prompt", "the LoRA tag at character 2 has no place in the negative prompt, since a LoRA works on both; it belongs in the prompt or in the list loras, with a weight below 0 to work against it", code="invalid_prompt"),
    ],
    "tags that are not understood": [
        Bad("a part", {"prompt": "a <lora:detail:1:lbw=1,0>"}, "prompt", "the LoRA tag at character 2 has the part lbw= (weights of single blocks), which is not done here; te= and unet= would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a part of no known meaning", {"prompt": "a <lora:detail:x=1>"}, "prompt", "the LoRA tag at character 2 has the part x=, which is not done here; te= and unet= would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a third number", {"prompt": "<lora:detail:1:1:4>"}, "prompt", "the LoRA tag at character 0 has 3 parts behind its name; the third, dyn in A1111 (a smaller rank), is not done here; one weight or two would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a weight that is no number", {"prompt": "<lyco:detail:0,8>"}, "prompt", "the LoRA tag at character 0 has no finite number (0,8) for the text encoders' weight; one would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a named weight that is no number", {"prompt": "<lora:detail:unet=>"}, "prompt", "the LoRA tag at character 0 has no finite number (it is empty) for unet=, the UNet's weight; one would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("no name", {"prompt": "<lora::1>"}, "prompt", "the LoRA tag at character 0 has no name; the name of a LoRA would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a weight that is given twice", {"prompt": "<lora:detail:te=1:te=2>"}, "prompt", "the LoRA tag at character 0 has two different te=; one would be right", code="invalid_prompt"),
        Bad("a tag in a tag", {"prompt": "<lora:detail:1 <lora:detail:1>"}, "prompt", "the LoRA tag at character 0 has another < before its >; each tag needs a > of its own", code="invalid_prompt"),
        Bad("a hypernetwork", {"negative_prompt": "<hypernet:x:1>"}, "negative_prompt", "the tag at character 0 names a hypernetwork; those are not served, LoRAs are, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", code="invalid_prompt"),
        Bad("a part, in a negative prompt", {"negative_prompt": "a <lora:detail:dyn=4>"}, "negative_prompt", "the LoRA tag at character 2 has no place in the negative prompt, since a LoRA works on both; it belongs in the prompt or in the list loras, with a weight below 0 to work against it", code="invalid_prompt"),
        Bad("a part, in an item", item({**GOOD, "prompt": "<lora:detail:stop=9>"}), "prompt", "the LoRA tag at character 0 has the part stop= (the step at which the LoRA ends), which is not done here; te= and unet= would be right, as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>", status=200, code="invalid_prompt"),
    ],
}

"""200 texts that become markup or script where a page is careless."""

from __future__ import annotations

import itertools

ELEMENTS = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg onload=window.hit=1>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<body onpageshow=window.hit=1>",
    "<details open ontoggle=window.hit=1>",
    "<style>*{display:none}</style>",
    "<a href=javascript:window.hit=1 autofocus onfocus=window.hit=1>x</a>",
    "<input autofocus onfocus=window.hit=1>",
    "<template><img src=x onerror=window.hit=1></template>",
    "<object data=javascript:window.hit=1>",
    "<base href=//example.org/>",
    "<meta http-equiv=refresh content=0;url=//example.org>",
    "<link rel=stylesheet href=//example.org/x.css>",
    "<math><mi xlink:href=javascript:window.hit=1>x</mi></math>",
    "<form id=form action=//example.org><button>x</button></form>",
    "<!--><img src=x onerror=window.hit=1>-->",
    "&lt;img src=x onerror=window.hit=1&gt;",
    "\u202e<b>turned</b>\u202c",
    "{{constructor.constructor('window.hit=1')()}}",
]
WRAPPINGS = [
    "{}",
    '"><{}',
    "'>{}",
    "</textarea>{}",
    "</mark></div>{}",
    "({}:1.3)",
    "[{}]",
    "<lora:{}:1>",
    "</title></style></script>{}",
    "\\u003c{}\u2028${{}}",
]
HOSTILE_TEXTS = [
    wrapping.replace("{}", element, 1)
    for wrapping, element in itertools.product(WRAPPINGS, ELEMENTS)
]
HOSTILE_NAMES = [text for text in HOSTILE_TEXTS if "/" not in text and len(text) <= 80][:40]
"""Those that may be a file's name."""

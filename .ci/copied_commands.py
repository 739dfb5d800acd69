"""A hook of mkdocs: what the copy button of a block of commands copies can be typed as it is."""

import re
from typing import Any

BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^( *)\$ ", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page without the prompts of its blocks of commands."""
    return BLOCK.sub(_without_prompts, markdown)


def _without_prompts(block: re.Match[str]) -> str:
    indent, commands = block[1], PROMPT.sub(r"\1", block[2])
    return f"{indent}```sh\n{commands}{indent}```"

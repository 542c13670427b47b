"""Refuse answers that would make a broken app, in one line, before a file is written."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterator

# cookiecutter renders this file; as hexadecimal an answer is data, whatever stands in it.
ANSWERS = json.loads(bytes.fromhex("{{ (cookiecutter | jsonify).encode().hex() }}"))
CHOICES = {
    "storage_type": ("memory", "sqlite", "redis", "postgres"),
    "context_type": ("dict", "dataclass", "pydantic"),
}
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 63  # a host name's part
WINDOWS = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def slug_like(text: str) -> str:
    """Return a slug that would pass, as near to the text as possible."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    if not slug:
        return "chatkit-app"
    if slug[0].isdigit() or WINDOWS.fullmatch(slug):
        slug = "app-" + slug
    return slug[:LONGEST].rstrip("-")


def escaped(name: str) -> str:
    """Return what `__name_escaped` must be: the name inside double quotes."""
    return name.replace("\\", "\\\\").replace('"', '\\"')


def faults() -> Iterator[str]:
    """Yield what is wrong with the answers; the first is told."""
    name, slug = ANSWERS["project_name"], ANSWERS["project_slug"]
    for key in ("project_name", "project_slug"):
        if not isinstance(ANSWERS[key], str):
            yield f"{key} must be text, not {ANSWERS[key]!r}"
    if not name.strip():
        yield "project_name is empty: give the app a name"
    for char in name:
        category = unicodedata.category(char)
        if category in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in BIDI:
            yield f"project_name holds the control character {char!a}: leave it out"
    if not SLUG.fullmatch(slug) or len(slug) > LONGEST or WINDOWS.fullmatch(slug):
        yield (
            f"project_slug {slug!a} must be lower-case letters, digits and single dashes, "
            f"start with a letter, not end with a dash, have {LONGEST} characters at most "
            f"and be no name of a Windows device: try {slug_like(slug)!r}"
        )
    for key, choices in CHOICES.items():
        if ANSWERS[key] not in choices:
            yield f"{key} {ANSWERS[key]!a} is none of {', '.join(choices)}"
    dev = "dev.py" if ANSWERS["storage_type"] in ("redis", "postgres") else ""
    if ANSWERS["__name_escaped"] != escaped(name) or ANSWERS["__dev"] != dev:
        yield "the replay file was edited by hand: remove its keys that begin with two underscores"


for message in faults():
    sys.stderr.write(f"ERROR: {message}\n")
    sys.exit(1)

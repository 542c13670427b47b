"""Refuse answers that would make a broken app, in one line, before a file is written.

Every bake waits for this script; any import would take longer than everything else in it.
"""

import sys

# cookiecutter renders this file; in hexadecimal an answer is data, whatever it contains.
ANSWERS = {
    "project_name": "{{ (cookiecutter.project_name | string).encode('unicode_escape').hex() }}",
    "project_slug": "{{ (cookiecutter.project_slug | string).encode('unicode_escape').hex() }}",
    "storage_type": "{{ (cookiecutter.storage_type | string).encode('unicode_escape').hex() }}",
    "context_type": "{{ (cookiecutter.context_type | string).encode('unicode_escape').hex() }}",
    "__name_escaped": "{{ (cookiecutter.__name_escaped | string).encode('unicode_escape').hex() }}",
    "__dev": "{{ (cookiecutter.__dev | string).encode('unicode_escape').hex() }}",
}
SLUGIFIED = "{{ cookiecutter.project_slug | string | slugify(max_length=63) }}"
CHOICES = {
    "storage_type": ("memory", "sqlite", "redis", "postgres"),
    "context_type": ("dict", "dataclass", "pydantic"),
}
LONGEST = 63  # the limit for one part of a host name
WINDOWS = {"con", "prn", "aux", "nul"} | {port + n for port in ("com", "lpt") for n in "0123456789"}
# Control characters, line ends, changes of the writing direction, halves of a surrogate pair.
UNFIT = {*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
UNFIT |= {*range(0xD800, 0xE000)}


def is_slug(text: str) -> bool:
    """Say whether the text can name a folder, a package and a part of a host name everywhere."""
    plain = text.isascii() and text == text.lower() and all(map(str.isalnum, text.split("-")))
    return plain and text[0].isalpha() and len(text) <= LONGEST and text not in WINDOWS


def fault(answers: dict[str, str]) -> str | None:
    """Return the first thing that is wrong with the answers."""
    name, slug = answers["project_name"], answers["project_slug"]
    if not name.strip():
        return "project_name is empty: give the app a name"
    if unfit := [char for char in name if ord(char) in UNFIT]:
        return f"project_name contains the control character {unfit[0]!a}: leave it out"
    if not is_slug(slug):
        near = SLUGIFIED or "chatkit-app"
        near = near if is_slug(near) else f"app-{near}"[:LONGEST].rstrip("-")
        return (
            f"project_slug {slug!a} cannot be used: try {near!r} "
            "(lower-case letters, digits and single dashes; a letter first, no dash last; "
            f"at most {LONGEST} characters; not the name of a Windows device)"
        )
    for key, choices in CHOICES.items():
        if answers[key] not in choices:
            return f"{key} {answers[key]!a} is not one of {', '.join(choices)}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    dev = "dev.py" if answers["storage_type"] in ("redis", "postgres") else ""
    if (answers["__name_escaped"], answers["__dev"]) != (escaped, dev):
        return "the replay file was edited by hand: remove the keys that begin with __"
    return None


given = {key: bytes.fromhex(code).decode("unicode_escape") for key, code in ANSWERS.items()}
if wrong := fault(given):
    sys.exit(f"ERROR: {wrong}")

"""Names and slugs that somebody may type."""

CANARY = "canary-was-executed"
EXECUTES = f"open('{CANARY}','w').close()"
HOSTILE = [
    'Bob\'s "Best" App',
    "’quotes‘ of “all” «kinds» `too` ''' \"\"\"",
    'back\\slash \\n \\\\ \\" \\',
    "trailing backslash\\",
    f"'); import os; os.system('touch {CANARY}') #",
    f'"); {EXECUTES}; ("',
    f'""" + {EXECUTES} + """',
    f"$({CANARY}) `touch {CANARY}` ; touch {CANARY} && true",
    "<script>alert(1)</script> </title> & &amp;",
    ']]> --> <!-- # jinja: include "/etc/passwd"',
    "emoji 🚀 👨‍👩‍👧‍👦 and ünïcödé",
    "שלום עולם مرحبا",
    "数字 アプリ",
    "%s %(x)s {0} {x} ${HOME} %PATH%",
    "[project] name = 'x' # = ] }",
    "- yaml: [1, 2] &anchor *alias !tag |",
    "x" * 200,
    "  spaces  around  ",
    "null",
    "2 fast",
    "🚀",
    "con",
]
RENDERED_BY_COOKIECUTTER = [
    "# jinja: set x = 1",
    "<# a comment #>",
    "{{ 7*7 }}",
    "{% raw %}",
    "{{ cookiecutter }}",
    "a {{ '{{' }} b {%",
]
"""To cookiecutter these are code on the command line; typed or replayed they are data."""
REFUSED = [
    "two\nlines",
    "tab\there",
    "nul\0",
    "bell\a",
    "\u202eright to left",
    "\u2028line",
    "next\x85line",
    "\u2066",
    " ",
]
WRONG_SLUGS = [
    "2fast", "-x", "x-", "a--b", "a/b", "../x", "Upper", "with space", "x" * 64, "ünï", "a_b",
    "a.b", "con", "lpt1", "a\nb", 'a"b', "a'b", "C:\\x", "x;y", "🚀",
]  # fmt: skip

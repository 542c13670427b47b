"""The app: routes, auth, server, assistant, store."""

NAME = "{{ cookiecutter.__name_escaped }}"  # fmt: skip

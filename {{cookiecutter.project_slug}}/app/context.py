# jinja: include "context/" ~ cookiecutter.context_type ~ ".py"

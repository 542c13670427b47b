# jinja: include "engine/" ~ cookiecutter.storage_type ~ ".py"

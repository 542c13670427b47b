# jinja: include "store/" ~ cookiecutter.storage_type ~ ".py"

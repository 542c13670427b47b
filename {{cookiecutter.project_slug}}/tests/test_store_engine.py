# jinja: if cookiecutter.storage_type in ("redis", "postgres")
# jinja: include "tests/server.py"
# jinja: else
# jinja: include ["tests/" ~ cookiecutter.storage_type ~ ".py", "tests/memory.py"]
# jinja: endif

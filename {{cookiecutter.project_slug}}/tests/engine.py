# jinja: include ["engine/" ~ cookiecutter.storage_type ~ ".py", "engine/memory.py"]

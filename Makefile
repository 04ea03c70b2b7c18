# make demo: train the sample classifier. make test: everything that must hold.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint bench docs clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/developer: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/igla demo

lint: .venv/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror src/igla/ops/native/*.cpp src/igla/ops/native/*.h
	$(BIN)/mypy
	$(BIN)/lint-imports

# A file's tests stay in one process, for the servers and models that they share.
test: lint
	$(BIN)/pytest -n auto --dist loadfile

clean:
	rm -rf .venv build dist

# The reference of all settings, from the recipe itself; a test holds it to that.
docs: .venv/installed
	{ printf '# Recipe\n\nAll settings with their defaults, as `igla recipe show` prints them.\n\n```yaml\n'; \
	  $(BIN)/igla recipe show; printf '```\n'; } > docs/recipe.md

# `make help` says what there is.  Everything happens in .venv and .demo; nothing else of the machine is
# changed, but for Debian's packages python3-venv, rabbitmq-server, prometheus (for promtool) and chromium where
# they are missing and we are root.

.DEFAULT_GOAL := help
.PHONY: help demo test unit lint format clean

STEP := scripts/step
PYTHON_IN := .venv/bin/python
UNIT_TESTS := $(filter-out tests.integration,$(patsubst tests/%/__init__.py,tests.%,$(wildcard tests/*/__init__.py))) \
	$(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))
PYTHON_SOURCES := setup.py twisted whatsapp_egress tests $(wildcard bench)
FULLY_COVERED := whatsapp_egress/policy/*,whatsapp_egress/pipeline/*

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: .venv/.installed-sandbox ## send a few hundred messages of eight tenants through the gateway, and look on
	@[ -n "$${RABBITMQ_HOST:-}" ] || $(STEP) 'RabbitMQ' 'The lines above say what to install.' scripts/rabbitmq
	@$(PYTHON_IN) -m whatsapp_egress.sandbox.demo

test: .venv/.installed-dev ## check everything: style, types, all tests with coverage, unit tests under trial
	@$(STEP) 'RabbitMQ' 'The lines above say what to install.' scripts/rabbitmq
	@$(STEP) 'promtool' 'The lines above say what to install.' scripts/debian-package promtool prometheus
	@$(STEP) 'Chromium' 'The lines above say what to install.' scripts/debian-package chromium chromium
	@$(STEP) 'ChromeDriver' 'The lines above say what to install.' scripts/debian-package chromedriver chromium-driver
	@$(MAKE) --no-print-directory lint
	@rm -f .coverage .coverage.*
	@$(STEP) 'all tests, with branch coverage' \
		'One test again: .venv/bin/python -m pytest -x tests/FILE.py -k NAME' \
		$(PYTHON_IN) -m coverage run -m pytest -n 2 --dist loadfile
	@$(PYTHON_IN) -m coverage combine --quiet
	@$(STEP) 'coverage: 90% of everything' 'Test the lines and branches that are listed as missing.' \
		$(PYTHON_IN) -m coverage report --fail-under=90
	@$(STEP) 'coverage: 100% of policy and pipeline' 'Test the lines and branches that are listed as missing.' \
		$(PYTHON_IN) -m coverage report --include='$(FULLY_COVERED)' --fail-under=100
	@$(STEP) 'unit tests under trial' 'One test again: .venv/bin/python -m twisted.trial tests.MODULE' \
		$(PYTHON_IN) -m twisted.trial -j 2 $(UNIT_TESTS)
	@printf '\nAll is well.\n'

unit: .venv/.installed-dev ## run the unit tests only, which need no RabbitMQ
	@$(STEP) 'promtool' 'The lines above say what to install.' scripts/debian-package promtool prometheus
	@$(PYTHON_IN) -m pytest --ignore=tests/integration

lint: .venv/.installed-dev ## check style and types
	@$(STEP) 'ruff check' 'Mend what is listed; make format mends some of it.' $(PYTHON_IN) -m ruff check .
	@$(STEP) 'ruff format' 'Run: make format' $(PYTHON_IN) -m ruff format --check $(PYTHON_SOURCES)
	@$(STEP) 'mypy --strict' 'Mend the types that are listed.' $(PYTHON_IN) -m mypy

format: .venv/.installed-dev ## put the source into shape
	@$(PYTHON_IN) -m ruff check --fix --quiet . ; $(PYTHON_IN) -m ruff format $(PYTHON_SOURCES)

clean: ## remove what was made here
	rm -rf .venv .demo build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis _trial_temp* tests.* twistd.log twistd.pid
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

.venv/.installed-dev: pyproject.toml setup.py scripts/environment
	@$(STEP) 'environment' 'The lines above say what is missing.' scripts/environment dev
	@touch .venv/.installed-sandbox

.venv/.installed-sandbox: pyproject.toml setup.py scripts/environment
	@$(STEP) 'environment' 'The lines above say what is missing.' scripts/environment sandbox

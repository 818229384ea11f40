# The index of commands; each is `python run NAME`, which sets up .venv on first use.
PYTHON ?= python3
NAMES := demo test test-slow check bench notebooks docs faults fuzz coverage mutate audit lock clean

.PHONY: $(NAMES)
$(NAMES):
	@$(PYTHON) run $@

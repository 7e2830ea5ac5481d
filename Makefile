# The course's commands; `make` alone lists them. Plain GNU Make, 3.81 (macOS) included.
PYTHON ?= python3
NB     ?=
LAB_ARGS ?=

PY        := .venv/bin/python
INSTALLED := .venv/.installed
# These networks are too small for a second thread to help, and a progress bar would stand in saved outputs.
QUIETLY   := OMP_NUM_THREADS=1 TQDM_DISABLE=1

# Whatever -j says: `test` reports the style first, then the units, then the notebooks.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help lab test test-all check unit unit-all notebooks browser refresh reset restore data reproduce sweeps bench costs

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

# A .venv that was moved, or whose Python is another than PYTHON=… asks for, has to be made again.
ifneq ($(shell sh scripts/install.sh "$(PYTHON)" "$(origin PYTHON)" fits && echo yes),yes)
.PHONY: $(INSTALLED)
endif

$(INSTALLED): pyproject.toml constraints.txt
	@sh scripts/install.sh "$(PYTHON)" "$(origin PYTHON)"

lab: $(INSTALLED)  ## build what is needed, then open the course in JupyterLab (LAB_ARGS=… is passed on)
	@$(PY) scripts/lab.py $(LAB_ARGS)

# Run each of these targets, whatever becomes of the others, and say at the end what became of each.
define stages
told=; status=0; for stage in $(1); do \
	printf '\n=== %s\n' "$$stage"; \
	if $(MAKE) --no-print-directory $$stage; then told="$$told, $$stage passed"; \
	else told="$$told, $$stage FAILED"; status=1; fi; \
done; \
printf '\n=== %s\n' "$$told" | sed 's/=== , /=== /'; exit $$status
endef

test: $(INSTALLED)  ## everything but slow unit tests: style, unit tests, every notebook run and compared, the panels
	+@$(call stages,check unit notebooks browser)

test-all: $(INSTALLED)  ## everything, with the slow unit tests
	+@$(call stages,check unit-all notebooks browser)

check: $(INSTALLED)  ## the style of code and notebooks, stale outputs, environment.yml against pyproject.toml
	@status=0; each() { echo "$$*"; "$$@" || status=1; }; \
	each $(PY) -m ruff check .; \
	each $(PY) -m ruff format --check .; \
	each $(PY) scripts/check_notebooks.py; \
	each $(PY) scripts/check_environment.py; \
	exit $$status

unit: $(INSTALLED)
	$(QUIETLY) $(PY) -m pytest tests --ignore tests/browser -n 2 -m "not slow"

unit-all: $(INSTALLED)
	$(QUIETLY) $(PY) -m pytest tests --ignore tests/browser -n 2

notebooks: $(INSTALLED)
	$(QUIETLY) $(PY) -m pytest --nbval notebooks -n 2 --dist loadfile

browser: $(INSTALLED)  ## the slider panels, turned in a real JupyterLab in a real Chromium
	$(QUIETLY) $(PY) -m pytest tests/browser

refresh: $(INSTALLED)  ## run the course's notebooks again and keep their outputs (NB=03 for one)
	$(QUIETLY) $(PY) scripts/refresh.py $(NB)

reset: $(INSTALLED)  ## a fresh copy of one notebook in study/: make reset NB=03 (yours moves to study/old/)
	@$(PY) scripts/study.py --reset "$(NB)"

restore: $(INSTALLED)  ## what JupyterLab kept of a damaged notebook in study/: make restore NB=03
	@$(PY) scripts/study.py --restore "$(NB)"

data: $(INSTALLED)  ## fetch the lecture's own names into data/names.txt
	@$(PY) -m helpers.data

reproduce: $(INSTALLED)  ## train the lecture's five networks in full, eight seeds each, and draw the loss log (resumes)
	OMP_NUM_THREADS=1 $(PY) scripts/reproduce.py

sweeps: $(INSTALLED)  ## the smaller sweeps that 09, 12 and X02 to X04 read (about an hour; resumes; needs the lecture's names)
	for sweep in gain_depth learning_rates residual_depth adam_sgd normalisations; do $(PY) scripts/$$sweep.py || exit 1; done

bench: $(INSTALLED)  ## how fast training and the panels are, against plain loops and interact (minutes; on an idle machine)
	OMP_NUM_THREADS=1 $(PY) scripts/benchmark.py
	OMP_NUM_THREADS=1 $(PY) scripts/benchmark_panels.py

costs: $(INSTALLED)  ## what each notebook and the unit tests cost, in steps of the lecture's own loop (minutes)
	$(QUIETLY) $(PY) scripts/costs.py $(NB)

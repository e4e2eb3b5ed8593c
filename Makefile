# make lab: environment and JupyterLab. make paper: environment and the whole paper on the embedded cohort.
# make verify: fresh numbers against the committed ones, item by item. make figures: replace what is committed.
# make mine COHORT=folder: your own recordings from the folder to a page of results. make brains: the same for open recordings.
# make test: environment and all tests but the long ones; make test-all: those too.
PYTHON ?= python3.11
BIN := .venv/bin
# what this process may use, which on a shared machine is less than there is
CORES ?= $(shell env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
TESTERS := $(shell expr $(CORES) + 1)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: env lab paper adapt experiment mine brains profile verify figures test test-all data readme site wheel lock clean

env: .venv/installed

# requirements.lock holds every package with its digests. HASHES=no takes the same versions without digests, for a machine
# whose packages are not those of the index: a torch that was built there (give it by PIP_FIND_LINKS), a mirror.
HASHES ?= yes
.venv/installed: pyproject.toml requirements.lock
	command -v $(PYTHON) >/dev/null || { echo "MIRAGE needs $(PYTHON); name another with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
ifeq ($(HASHES),yes)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
else
	$(BIN)/python -m pip install --quiet -c constraints.txt '.[dev,site]'
endif
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

# after a change in pyproject.toml or constraints.txt: the versions of constraints.txt, with the digests of all their files
lock: env
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --quiet -c constraints.txt -o requirements.lock --custom-compile-command 'make lock'

lab: env
	$(BIN)/jupyter lab $(LAB)

# the table and the first map are made before everything else
FIRST := $(patsubst %,results/embedded/figures/%.json,table1_scores fig3_modalities)
paper: env
	$(BIN)/snakemake paper -s nbs/paper.smk --cores $(CORES) --rerun-incomplete --quiet host reason rules --prioritize $(FIRST)
	$(BIN)/python -m mirage.plotting.results verify embedded
	@echo 'The paper is made. Open results/embedded/figures/index.html: every item with its picture, its claims and what became of them.'

# of which cohort
COHORT ?= embedded
# looked over, timed, fitted, checked and drawn (chapter 09d); MINE='-p folds 4' and the like are further parameters
mine: env
	mkdir -p results/notebooks
	$(BIN)/papermill nbs/09d_mine.ipynb results/notebooks/mine.ipynb -p cohort $(COHORT) $(MINE) --log-output

# r of new people against their minutes of recordings, on the embedded cohort or COHORT
adapt: env
	mkdir -p results/notebooks
	$(BIN)/papermill nbs/figures/adapt.ipynb results/notebooks/adapt.ipynb -p cohort $(COHORT) --log-output
	$(BIN)/papermill nbs/08e_results.ipynb results/notebooks/results.ipynb -p cohort $(COHORT)

# a cohort with a planted answer to speech and to an object, a model trained on it, an experiment on what it predicts, and a control
experiment: env
	mkdir -p results/notebooks
	$(BIN)/papermill nbs/figures/experiment.ipynb results/notebooks/experiment.ipynb --log-output

# studyforrest (chapter 01k): asks before it fetches, and goes on with what is there
brains: env
	$(BIN)/python -m mirage.prediction.mine

# make profile COHORT=data/mine BACKBONE=text=models/minilm,audio=ready: models of your own (chapter 02i) through ridge, MIRAGE and depth
BACKBONE ?= laptop
profile: env
	$(BIN)/snakemake profile -s nbs/paper.smk --cores $(CORES) --rerun-incomplete --quiet host reason rules --config cohort=$(COHORT) backbone=$(BACKBONE)
	@echo 'Drawn in results/<cohort>/figures: fig5_attention, fig7_heads, fig9_depth.'

verify: env
	$(BIN)/python -m mirage.plotting.results verify $(COHORT)

figures: env
	$(BIN)/python -m mirage.plotting.results publish $(COHORT)

# one more at work than there are cores: some wait for a cluster's queue, or for what another one builds
test: env
	$(BIN)/python tests/sync.py
	$(BIN)/ruff check nbs tests site
	$(BIN)/ruff format --check nbs tests site
	$(BIN)/ruff check --select F821,F811,E9 mirage
	$(BIN)/python tests/style.py
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbdev_test --n_workers $(TESTERS) --do_print --timing
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder --durations 25

# the long tests: hundreds of kills, many seeds
test-all: test
	$(BIN)/python -m pytest -m long -n $(TESTERS) --durations 25

# what is there of the real data, what is missing, what was altered; GROUP=bold, transcripts, ... and ACTION=check or fetch
GROUP ?= bold
ACTION ?= check
data: env
	mkdir -p results/notebooks
	$(BIN)/papermill nbs/01j_manifest.ipynb results/notebooks/data.ipynb -p group $(GROUP) -p action $(ACTION) --log-output

readme: env
	$(BIN)/jupyter nbconvert --to markdown --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags hide --output-dir . --output README nbs/index.ipynb
	perl -0pi -e 's{```\n(?=from mirage)}{```python\n}' README.md
	perl -pi -e 's{\]\((\w[\w/]*\.ipynb)\)}{](nbs/$$1)}g; s{\]\(\.\./}{](}g' README.md   # links count from the repository's root

# static pages of everything, in build/site: open build/site/index.html, or put the folder on any server
site: env
	$(BIN)/python site/build.py build/source
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet -f build/mkdocs.yml
	@echo 'The site is made: build/site/index.html'

# what pip installs: dist/*.whl
wheel: env
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist results features data/embedded data/smoke .snakemake

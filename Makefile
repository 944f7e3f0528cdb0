# Two commands set everything up by themselves: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What is installed; with train (PyTorch) the tests of training run as well.
EXTRAS ?= dev
# Tests that only compute, two at a time; all others start daemons, which are given the machine.
SIDE_BY_SIDE = tests/unit tests/property tests/statistics tests/gpu

BENCH := $(BIN)/rtqec-bench
BENCH_OUT ?= bench-results
D5 := configs/d5_memory_z.toml
# One endless stream with small windows, each answered at once.
STREAM := configs/d5_1us.toml --set pace.burst_us=0 --set lane.coalesce_us=0

.PHONY: demo test lint bench claims clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: $(STAMP)  ## start the daemon and a simulated FPGA, decode for about 20 s, report
	$(BIN)/firmware-sim loop configs/d5_memory_z.toml

test: $(STAMP)  ## run all tests
	$(BIN)/pytest -n 2 --dist loadfile $(SIDE_BY_SIDE)
	$(BIN)/pytest $(SIDE_BY_SIDE:%=--ignore=%)

lint: $(STAMP)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## measure this machine, about half an hour: bench-results/report.html
	$(BENCH) stages $(D5) --set plan.rounds=8d --sweep plan.distance=5,9,13 --sweep plan.noise=0.001,0.003 \
	    --blocks 10 --repeats 5 --out $(BENCH_OUT)
	$(BENCH) latency $(STREAM) --set window.commit_rounds=5 --set pace.period_us=10 --rounds 400000 --repeats 5 \
	    --out $(BENCH_OUT)
	$(BENCH) latency configs/d5_1us.toml --set pace.period_us=1.1 --mode wire --rounds 1000000 --repeats 5 \
	    --out $(BENCH_OUT)
	$(BENCH) latency $(D5) --set plan.distance=13 --set plan.rounds=104 --set pace.period_us=19.2 \
	    --mode service --repeats 5 --out $(BENCH_OUT)
	$(BENCH) rate configs/d5_1us.toml --mode wire --low 200000 --high 4000000 --seconds 1 --tolerance 0.25 \
	    --trials 16 --repeats 5 --out $(BENCH_OUT)
	$(BENCH) rate $(D5) --set plan.noise=0.001 --sweep plan.distance=3,5,7,9 --mode wire --low 50000 --seconds 1 \
	    --tolerance 0.25 --trials 16 --out $(BENCH_OUT)
	$(BENCH) rate $(D5) --sweep plan.noise=0.001,0.003 --sweep plan.distance=3,5,7,9,11,13 --mode service \
	    --seconds 1 --out $(BENCH_OUT)
	$(BENCH) compare $(D5) --set plan.noise=0.001 --sweep plan.rounds=5,50 --shots 2000 --repeats 5 --out $(BENCH_OUT)
	$(BENCH) compare $(D5) --set plan.noise=0.001 --workload stream --repeats 5 --out $(BENCH_OUT)
	$(BENCH) accuracy $(D5) --sweep plan.noise=0.002,0.004,0.008 --sweep plan.distance=3,5,7 --max-shots 50000 \
	    --max-errors 300 --out $(BENCH_OUT)
	$(BENCH) report $(BENCH_OUT) --out $(BENCH_OUT)

claims: $(STAMP)  ## draw the figures and the table of the README from bench/results
	$(BENCH) report bench/results --out docs --readme README.md

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache

# ctm.h: every target is what you would type yourself. `make help` lists them. A C compiler and make are all that is needed.
#
# -O2 is enough: the fast kernels choose their instruction set when the program runs (no -march).
# -fopenmp is used if the compiler has it; without it everything runs on one thread, with the same results.

CC      ?= cc
CFLAGS  ?= -O2 -g
WARN     = -Wall -Wextra -pedantic
OPENMP  := $(shell printf '\043include <omp.h>\nint main(void){return omp_get_num_procs()<1;}\n' > .omp.c 2>/dev/null && \
             $(CC) -fopenmp .omp.c -o .omp.out 2>/dev/null && echo -fopenmp; rm -f .omp.c .omp.out)
BUILD    = $(CC) $(CFLAGS) $(WARN) $(OPENMP) $(CPPFLAGS)
HELPERS  = examples/plot.h examples/args.h examples/table.h examples/toys.h examples/measure.h examples/story.h

MAKEFLAGS += --jobs=2      # compile two programs at a time

all: build/hello build/points build/claims build/use_weights     ## build the examples

demo: build/points                                  ## train on the ring of eight Gaussians, draw everything into out/demo
	build/points train --data ring --out out/demo

claims: build/claims                                ## the paper's claims in miniature: a table of verdicts, a figure each into out/claims
	build/claims --out out/claims

test: build/test_float build/test_double all        ## all tests; ends with "N passed, N failed"
	@sh tests/run.sh

test-long: build/test_float build/test_double all   ## the slow ones too: fast-math, other builds, limits on one full demo run
	@sh tests/run.sh long

bench: build/bench                                  ## speed: lines `bench NAME value UNIT`
	@build/bench

bench-peers: build/bench                            ## the same shapes in PyTorch, in one run, with ratios (needs python3-torch)
	@sh tests/bench_peers.sh

mutate: build/test_float                            ## break ctm.h in many small ways; every one must be caught
	@sh tests/mutate.sh

merit: build/points                                 ## the figures that README and PAPER_NOTES quote: seeds 0, 1, 2
	@sh tests/merit.sh

golden:                                             ## make the golden data anew (needs python3-torch)
	python3 tests/golden/make_golden.py

clean:                                              ## remove build/ and out/
	rm -rf build out

help:                                               ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 14

build/hello: examples/01_hello.c ctm.h $(HELPERS) | build
	$(BUILD) examples/01_hello.c -o $@ -lm
build/points: examples/02_points.c ctm.h $(HELPERS) | build
	$(BUILD) examples/02_points.c -o $@ -lm
build/claims: examples/03_claims.c ctm.h $(HELPERS) | build
	$(BUILD) examples/03_claims.c -o $@ -lm
build/use_weights: examples/use_weights.c ctm.h $(HELPERS) | build
	$(BUILD) examples/use_weights.c -o $@ -lm
build/bench: tests/bench.c ctm.h | build
	$(BUILD) tests/bench.c -o $@ -lm
build/test_float: $(wildcard tests/*.c tests/*.h) ctm.h | build
	$(BUILD) tests/main.c -o $@ -lm
build/test_double: $(wildcard tests/*.c tests/*.h) ctm.h | build
	$(BUILD) -DCTM_REAL_DOUBLE tests/main.c -o $@ -lm
build:
	@mkdir -p build

.PHONY: all demo claims test test-long bench bench-peers mutate merit golden clean help

# ctm.h: every target is what you would type yourself. `make help` lists them. A C compiler and make are all that is needed.
#
# -O2 is enough: the fast kernels choose their instruction set when the program runs (no -march).
# -fopenmp is used if the compiler has it; without it everything runs on one thread, with the same results.

CC      ?= cc
CFLAGS  ?= -O2 -g
NO_G    := $(if $(filter file,$(origin CFLAGS)),-g0)       # the tests compile faster without debug information; CFLAGS of yours are left alone
WARN     = -Wall -Wextra -pedantic
OPENMP  := $(shell t=$$(mktemp) && printf '\043include <omp.h>\nint main(void){return omp_get_num_procs()<1;}\n' | \
             $(CC) -fopenmp -x c - -o $$t 2>/dev/null && echo -fopenmp; rm -f $$t)
BUILD    = $(CC) $(CFLAGS) $(WARN) $(OPENMP) $(CPPFLAGS)
LINKED   = $(BUILD) -DCTM_LINKED
HELPERS  = $(wildcard apps/*.h)
APPS     = points images edit claims                       # apps/NAME.c
LESSONS := $(shell ls examples/*.c | grep -v /00_ | sed -n 's,^examples/[0-9][0-9]_\(.*\)\.c$$,\1,p')          # examples/NN_NAME.c

MAKEFLAGS += --jobs=2      # compile two programs at a time

MPI     := $(shell command -v mpicc 2>/dev/null >/dev/null && echo build/mpi)

all: build/mini $(LESSONS:%=build/%) $(APPS:%=build/%) $(MPI)      ## build the lessons of examples/ and the programs of apps/

demo: build/points                                  ## train on the ring of eight Gaussians, draw everything into out/demo
	build/points train --data ring --out out/demo

claims: build/claims                                ## the paper's claims in miniature: a table of verdicts, a figure each into out/claims
	build/claims --out out/claims

pictures: build/images                              ## Fashion-MNIST: teacher, student, pictures and measures into out/pictures (FASHION=FOLDER of its files)
	@sh apps/pictures.sh $(FASHION)

test: build/test_float build/test_double build/test_fuzz build/test_mini all        ## all tests; ends with "N passed, N failed"
	@sh tests/run.sh

test-long: build/test_float build/test_double build/test_fuzz build/test_mini build/exercises all  ## the slow ones too: fast-math, other builds, limits on one full demo run
	@sh tests/run.sh long

bench: build/bench                                  ## speed: lines `bench NAME value UNIT`
	@build/bench

bench-peers: build/bench                            ## the same shapes in PyTorch, in one run, with ratios (needs python3-torch)
	@sh tests/bench_peers.sh

bench-flags:                                        ## is cc -O2 as fast as -O3 -march=native?
	@sh tests/bench_flags.sh

mutate: build/test_float                            ## break ctm.h in many small ways; every one must be caught
	@sh tests/mutate.sh

merit: build/points                                 ## the figures that README and docs/results.md quote: seeds 0, 1, 2
	@sh tests/merit.sh

cifar10:                                            ## fetch CIFAR-10 into out/cifar10 (170 MB; several mirrors, resumes, checks)
	@sh apps/cifar10.sh out/cifar10

fuzz:                                               ## every reader of files and the flags with libFuzzer, FUZZ_SECONDS=60 each (needs clang)
	@sh tests/fuzz/run.sh

golden:                                             ## make the golden data anew (needs python3-torch)
	python3 tests/golden/make_golden.py
	cd tests/golden && python3 make_lpips.py

clean:                                              ## remove build/ and out/
	rm -rf build out

help:                                               ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 14

build/ctm.o: ctm.h | build                           # the implementation, once for all programs; without make each has its own
	$(BUILD) -DCTM_IMPLEMENTATION -x c -c ctm.h -o $@
build/mini: examples/00_mini.c | build
	$(CC) $(CFLAGS) $(WARN) $(CPPFLAGS) $< -o $@ -lm
$(foreach lesson,$(LESSONS),$(eval build/$(lesson): $(wildcard examples/??_$(lesson).c)))
$(LESSONS:%=build/%): build/ctm.o
	$(LINKED) $(filter %.c,$^) build/ctm.o -o $@ -lm
$(APPS:%=build/%): build/%: apps/%.c $(HELPERS) build/ctm.o
	$(LINKED) $< build/ctm.o -o $@ -lm
build/mpi: apps/mpi.c ctm.h $(HELPERS) | build
	mpicc $(CFLAGS) $(WARN) $(OPENMP) $(CPPFLAGS) apps/mpi.c -o $@ -lm
build/test_fuzz: $(wildcard tests/fuzz/*.c tests/fuzz/*.h) $(HELPERS) build/ctm.o
	$(LINKED) $(NO_G) tests/fuzz/replay.c build/ctm.o -o $@ -lm
build/bench: tests/bench.c ctm.h | build
	$(BUILD) tests/bench.c -o $@ -lm
build/test_mini: tests/test_mini.c examples/00_mini.c ctm.h | build
	$(BUILD) $(NO_G) -O1 -DCTM_NO_IMAGES tests/test_mini.c -o $@ -lm
build/test_float: $(wildcard tests/*.c tests/*.h) ctm.h | build
	$(BUILD) $(NO_G) -O1 tests/main.c -o $@ -lm
build/test_double: $(wildcard tests/*.c tests/*.h) ctm.h | build
	$(BUILD) $(NO_G) -O1 -DCTM_REAL_DOUBLE tests/main.c -o $@ -lm
build:
	@mkdir -p build

.PHONY: all demo claims pictures test test-long fuzz bench bench-peers bench-flags mutate merit cifar10 golden clean help

# Ways into the book: read it, run it, step through it.

book:                                               ## weave ctm.h into one page, out/book.html (python3; formulas need pandoc)
	python3 book/weave.py --check ctm.h book/formulas.tex PAPER_NOTES.md out/book.html
	@echo open out/book.html

notebook:                                           ## run notebook/ctm.ipynb from top to bottom, outputs kept in it (needs Jupyter)
	sh notebook/run.sh notebook/ctm.ipynb
	@echo "see notebook/ctm.ipynb (jupyter notebook notebook/ctm.ipynb runs it cell by cell)"

debug: build/tour                                   ## a guided tour of one training step in gdb: debug/TOUR.md
	gdb -q -nx -x debug/tour.gdb build/tour

exercises: build/exercises                          ## the numbers that EXERCISES.md asks for (a minute)
	@build/exercises

build/exercises: tests/exercises.c build/ctm.o
	$(LINKED) tests/exercises.c build/ctm.o -o $@ -lm
build/tour: debug/tour.c ctm.h | build
	$(CC) -O0 -g3 $(WARN) -DCTM_NO_OPENMP $(CPPFLAGS) debug/tour.c -o $@ -lm

.PHONY: book notebook debug exercises

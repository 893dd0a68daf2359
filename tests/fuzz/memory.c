// fuzz_fopen for programs that are no targets themselves.
#include "fuzz.h"

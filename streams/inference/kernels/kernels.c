/* The compiled kernels: one library, called by ctypes. They use neither Python's nor numpy's headers.
 * Compile without -ffast-math and with -ffp-contract=off.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#include "trees.c"
#include "rows.c"
#include "records.c"
#include "checksums.c"
#include "batches.c"
#include "envelopes.c"
#include "keys.c"
#include "results.c"
#include "headers.c"
#include "histograms.c"

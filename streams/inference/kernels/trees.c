/* Sums of decision trees over float64 rows, and the transforms of LightGBM's objectives.
 *
 * A value is first replaced by its rank among the thresholds that it is compared with: x <= threshold[k] holds exactly
 * if at most k thresholds are below x. Ranks are bytes, so that 64 rows pass a split in a few vector instructions.
 * Leaf values are added tree after tree, in the order of the model, as the library does.
 *
 * forest.py makes the arrays and checks all sizes and indices in them; nothing is checked here.
 */

#define LANES 64      /* rows of a block */
#define GROUP 8       /* trees that one row walks down at a time: their steps do not wait for each other */
#define LOWEST (-128) /* rank r is kept as r - 128: signed bytes compare in one instruction */
#define ZERO 1e-35f   /* kZeroThreshold of LightGBM: |x| up to this counts as zero */

#if defined(__clang__)
#define WIDTH 64
#define NOT_VECTORISED _Pragma("clang loop vectorize(disable)") /* gathers take longer than single loads */
#else
#define WIDTH 32 /* gcc takes wider vectors apart, byte by byte, where the processor has none */
#define NOT_VECTORISED
#endif
#define PARTS (LANES / WIDTH)
/* Hides how a value came about: compilers would make a branch of it, which would be mispredicted half of the time. */
#define NO_BRANCH(value) __asm__("" : "+r"(value))

typedef int8_t lanes __attribute__((vector_size(WIDTH), aligned(WIDTH)));

enum { CATEGORICAL = -1, MISSING_NONE = 0, MISSING_ZERO = 2, MISSING_NAN = 4, DEFAULT_LEFT = 1 };

typedef struct {
    int64_t first; /* of its thresholds in cuts, or of its set in words */
    int32_t feature;
    int32_t size;  /* thresholds rounded up to 2^steps - 1; of a set: its number of bits */
    int32_t steps; /* of the binary search */
    int32_t kind;  /* CATEGORICAL, or a missing type and perhaps DEFAULT_LEFT */
} plane;

typedef struct {
    uint16_t plane;
    int8_t limit;  /* a row goes right if its rank in the plane is above */
    int8_t unused;
    int16_t jump;  /* from the left child, which is the next node, to the right child; -1 in leaves */
    uint16_t leaf; /* number of the leaf in its tree, from left to right */
} node;

typedef struct {
    uint16_t plane;
    int8_t limit;
    uint8_t first; /* leftmost leaf below the split */
    uint8_t step;  /* leaves of its left subtree */
    uint8_t unused;
} split;

typedef struct {
    int64_t node, split, leaf; /* its first ones */
    int32_t splits, depth;
} tree;

typedef struct {
    int64_t features, planes, trees, outputs;
    int64_t blocks_from; /* rows from which on blocks are faster than single rows; 0: never */
    const plane *plane;
    const tree *tree;
    const node *node;
    const split *split;
    const double *cuts, *values;
    const uint32_t *words;
} forest;

/* ---- ranks: `stride` bytes a plane, one a row */

INLINE void search(const double *cuts, int steps, const double *x, int64_t rows, int8_t *out) {
    int32_t below[LANES];
    for (int64_t i = 0; i < rows; i++) below[i] = 0;
    while (steps--)
        NOT_VECTORISED
        for (int64_t i = 0; i < rows; i++)
            below[i] += (int32_t)(cuts[below[i] + (1 << steps) - 1] < x[i]) << steps;
    for (int64_t i = 0; i < rows; i++) out[i] = (int8_t)(below[i] + LOWEST);
}

INLINE void missing(int32_t kind, const double *raw, int64_t rows, int8_t *out) {
    int8_t to = kind & DEFAULT_LEFT ? LOWEST : INT8_MAX;
    for (int64_t i = 0; i < rows; i++)
        if (raw[i] != raw[i] || ((kind & MISSING_ZERO) && __builtin_fabs(raw[i]) <= ZERO)) out[i] = to;
}

INLINE void members(const uint32_t *words, int32_t size, const double *raw, int64_t rows, int8_t *out) {
    for (int64_t i = 0; i < rows; i++) {
        /* Bit `size` of every set is 0. */
        uint32_t code = raw[i] > -1.0 && raw[i] < size ? (uint32_t)(int32_t)raw[i] : (uint32_t)size;
        out[i] = (int8_t)(LOWEST + !(words[code >> 5] >> (code & 31) & 1));
    }
}

INLINE void rank(const forest *f, const double *matrix, int64_t rows, int64_t stride, int8_t *ranks) {
    double raw[LANES], x[LANES];
    int32_t feature = -1;
    for (const plane *p = f->plane; p < f->plane + f->planes; p++, ranks += stride) {
        if (p->feature != feature) {
            feature = p->feature;
            for (int64_t i = 0; i < rows; i++) {
                raw[i] = matrix[i * f->features + feature];
                x[i] = __builtin_fabs(raw[i]) > ZERO ? raw[i] : 0.0; /* also what is not a number */
            }
        }
        if (p->kind == CATEGORICAL) {
            members(f->words + p->first, p->size, raw, rows, ranks);
        } else {
            search(f->cuts + p->first, p->steps, x, rows, ranks);
            if (p->kind != MISSING_NONE) missing(p->kind, raw, rows, ranks);
        }
    }
    memset(ranks, INT8_MAX, stride); /* the plane of leaves: always above */
}

/* ---- one row: GROUP trees at a time, each to the greatest depth among them; leaves lead to themselves */

INLINE void walk(const forest *f, const int8_t *ranks, int64_t stride, double *sums) {
    int64_t output = 0;
    for (int64_t k = 0; k < f->outputs; k++) sums[k] = 0.0;
    for (int64_t t = 0; t < f->trees; t += GROUP) {
        const tree *trees = f->tree + t;
        int64_t count = f->trees - t < GROUP ? f->trees - t : GROUP;
        const node *at[GROUP];
        int32_t depth = 0;
        for (int64_t j = 0; j < GROUP; j++) {
            at[j] = f->node + trees[j < count ? j : 0].node;
            if (j < count && trees[j].depth > depth) depth = trees[j].depth;
        }
        for (; depth; depth--)
            for (int64_t j = 0; j < GROUP; j++) {
                int64_t right = -(int64_t)(ranks[at[j]->plane * stride] > at[j]->limit);
                NO_BRANCH(right);
                at[j] += 1 + (at[j]->jump & right);
            }
        for (int64_t j = 0; j < count; j++) {
            sums[output] += f->values[trees[j].leaf + at[j]->leaf];
            output = output + 1 == f->outputs ? 0 : output + 1;
        }
    }
}

/* ---- 64 rows: every split of a tree in preorder. A row is below a split exactly if its place is the split's leftmost
 * leaf; going right moves it to the leftmost leaf there. After the last split its place is its leaf. */

INLINE void pass(const forest *f, const int8_t *ranks, double *totals) {
    int64_t output = 0;
    for (int64_t i = 0; i < f->outputs * LANES; i++) totals[i] = 0.0;
    for (const tree *t = f->tree; t < f->tree + f->trees; t++) {
        lanes place[PARTS] = {0};
        uint8_t leaf[LANES];
        const split *end = f->split + t->split + t->splits;
        for (const split *s = f->split + t->split; s < end; s++) {
            const lanes *ranked = (const lanes *)(ranks + s->plane * LANES);
            for (int part = 0; part < PARTS; part++)
                place[part] += (place[part] == (int8_t)s->first) & (ranked[part] > s->limit) & (int8_t)s->step;
        }
        memcpy(leaf, place, LANES);
        const double *values = f->values + t->leaf;
        double *sums = totals + output * LANES;
        for (int64_t i = 0; i < LANES; i++) sums[i] += values[leaf[i]];
        output = output + 1 == f->outputs ? 0 : output + 1;
    }
}

/* ---- entry points */

INLINE void block(const forest *f, const double *matrix, int64_t rows, int8_t *ranks, double *totals, double *sums) {
    rank(f, matrix, rows, LANES, ranks);
    pass(f, ranks, totals);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < f->outputs; k++) sums[i * f->outputs + k] = totals[k * LANES + i];
}

INLINE int sums_of(const forest *f, const double *matrix, int64_t rows, double *sums) {
    size_t rank_bytes = (size_t)(f->planes + 1) * LANES;
    int8_t *ranks = aligned_alloc(LANES, rank_bytes + (size_t)f->outputs * LANES * sizeof(double));
    if (!ranks) return -1;
    double *totals = (double *)(ranks + rank_bytes);
    memset(ranks, LOWEST, rank_bytes); /* also of the rows that the last block lacks */
    for (int64_t left = rows; left; ) {
        int64_t count = left < LANES ? left : LANES;
        if (f->blocks_from && count >= f->blocks_from) {
            if (count == LANES) block(f, matrix, LANES, ranks, totals, sums);
            else block(f, matrix, count, ranks, totals, sums);
        } else {
            rank(f, matrix, count, count, ranks);
            for (int64_t i = 0; i < count; i++) walk(f, ranks + i, count, sums + i * f->outputs);
        }
        matrix += count * f->features;
        sums += count * f->outputs;
        left -= count;
    }
    free(ranks);
    return 0;
}

/* ---- one version for each kind of processor; 0 runs on all */

static int sums_on_any(const forest *f, const double *matrix, int64_t rows, double *sums) {
    return sums_of(f, matrix, rows, sums);
}

#if defined(__x86_64__)
#include <cpuid.h>

__attribute__((target("avx2")))
static int sums_on_avx2(const forest *f, const double *matrix, int64_t rows, double *sums) {
    return sums_of(f, matrix, rows, sums);
}

__attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512dq")))
static int sums_on_avx512(const forest *f, const double *matrix, int64_t rows, double *sums) {
    return sums_of(f, matrix, rows, sums);
}

/* The best version for this processor and what the system saves of it. The compilers' own way to ask needs a part of
 * their run-time library that not every linker brings. */
int32_t inferd_version(void) {
    uint32_t a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    uint32_t wide = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    return (saved & 0xe6) == 0xe6 && (b & wide) == wide ? 2 : 1;
}
#else
#define sums_on_avx2 sums_on_any
#define sums_on_avx512 sums_on_any

int32_t inferd_version(void) { return 0; }
#endif

/* ---- from sums to predictions */

enum { IDENTITY, SIGMOID, SOFTMAX, EXP, LOG1P_EXP, SIGNED_SQUARE };

/* The library's own functions: compilers bring others, whose last bits differ. */
typedef double (*real_function)(double);

static void softmax(double *x, int64_t outputs, real_function exp) {
    double top = x[0], total = 0.0;
    for (int64_t k = 1; k < outputs; k++) top = x[k] < top ? top : x[k];
    for (int64_t k = 0; k < outputs; k++) total += x[k] = exp(x[k] - top);
    for (int64_t k = 0; k < outputs; k++) x[k] /= total;
}

static double transformed(int32_t transform, double scale, double x, real_function exp, real_function log1p) {
    switch (transform) {
        case SIGMOID: return 1.0 / (1.0 + exp(-scale * x));
        case EXP: return exp(x);
        case LOG1P_EXP: return log1p(exp(x));
        case SIGNED_SQUARE: return ((x > 0) - (x < 0)) * x * x;
        default: return x;
    }
}

typedef struct {
    int64_t rounds; /* what sums are divided by; 0: not divided */
    double scale;
    real_function exp, log1p;
    int32_t transform;
} ending;

/* Sums (rows, outputs) to predictions, in place, as `ConvertOutput` of LightGBM's objectives. */
static void finish(const ending *e, double *sums, int64_t rows, int64_t outputs) {
    if (e->rounds)
        for (int64_t i = 0; i < rows * outputs; i++) sums[i] /= (double)e->rounds;
    if (e->transform == SOFTMAX)
        for (int64_t i = 0; i < rows; i++) softmax(sums + i * outputs, outputs, e->exp);
    else if (e->transform != IDENTITY)
        for (int64_t i = 0; i < rows * outputs; i++)
            sums[i] = transformed(e->transform, e->scale, sums[i], e->exp, e->log1p);
}

/* float64 matrix (rows, features) -> float64 predictions (rows, outputs), or sums where `e` is null; 0, or -1 if memory
 * ran out. `version` is at most `inferd_version()`. */
int32_t inferd_tree_predict(const forest *f, const ending *e, const double *matrix, int64_t rows, double *out,
                            int32_t version) {
    int failed = version == 2   ? sums_on_avx512(f, matrix, rows, out)
                 : version == 1 ? sums_on_avx2(f, matrix, rows, out)
                                : sums_on_any(f, matrix, rows, out);
    if (!failed && e) finish(e, out, rows, f->outputs);
    return failed;
}

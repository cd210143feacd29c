/* Histograms of the columns of a matrix: the bin of a value is the number of its column's edges that are not above it, and
 * a missing value (NaN) has a bin of its own.
 *
 * kernels/histograms.py makes the arrays and checks all sizes and indices in them; nothing is checked here.
 */

#define COLUMNS 64 /* columns whose values of a row are compared at a time */

/* `columns`: the place of each in a row; `edges`: (edge, column), NaN where a column has fewer; `groups`: the histogram that
 * a row belongs to; `counts`: (group, column, bin), to which the rows are added. */
INLINE void count_all(const double *matrix, int64_t rows, int64_t row_size, const int64_t *columns, int64_t count,
                      const double *edges, int64_t edge_count, const int64_t *groups, int64_t *counts) {
    int64_t bins = edge_count + 2;
    for (int64_t first = 0; first < count; first += COLUMNS) {
        int64_t size = count - first < COLUMNS ? count - first : COLUMNS;
        for (int64_t row = 0; row < rows; row++) {
            const double *values = matrix + row * row_size;
            int64_t *own = counts + (groups[row] * count + first) * bins;
            double taken[COLUMNS];
            int64_t places[COLUMNS];
            for (int64_t i = 0; i < size; i++) taken[i] = values[columns[first + i]];
            for (int64_t i = 0; i < size; i++) places[i] = taken[i] != taken[i] ? bins - 1 : 0;
            for (int64_t edge = 0; edge < edge_count; edge++) {
                const double *of_edge = edges + edge * count + first;
                for (int64_t i = 0; i < size; i++) places[i] += taken[i] >= of_edge[i];
            }
            for (int64_t i = 0; i < size; i++) own[i * bins + places[i]]++;
        }
    }
}

#define COUNT(name)                                                                                                     \
    static void name(const double *matrix, int64_t rows, int64_t row_size, const int64_t *columns, int64_t count,       \
                     const double *edges, int64_t edge_count, const int64_t *groups, int64_t *counts) {                 \
        count_all(matrix, rows, row_size, columns, count, edges, edge_count, groups, counts);                           \
    }

COUNT(count_on_any)
#ifdef __x86_64__
__attribute__((target("avx2"))) COUNT(count_on_avx2)
__attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512dq"))) COUNT(count_on_avx512)
#else
#define count_on_avx2 count_on_any
#define count_on_avx512 count_on_any
#endif

/* `version` is at most `inferd_version()`. */
void inferd_count_bins(const double *matrix, int64_t rows, int64_t row_size, const int64_t *columns, int64_t count,
                       const double *edges, int64_t edge_count, const int64_t *groups, int64_t *counts, int32_t version) {
    (version == 2 ? count_on_avx512 : version == 1 ? count_on_avx2 : count_on_any)(
        matrix, rows, row_size, columns, count, edges, edge_count, groups, counts);
}

/* BLAKE2b digests of 8 bytes (RFC 7693), several keys at a time: they choose the versions of a split. Digests are those of
 * hashlib.blake2b(key, digest_size=8), read as big-endian integers.
 *
 * Each lane of a vector has one key. A lane whose key has no more blocks keeps its state.
 */

#define KEYS (WIDTH / 8) /* lanes */
#define BLOCK 128        /* bytes of a key that one compression takes */

typedef uint64_t words __attribute__((vector_size(WIDTH), aligned(WIDTH)));

static const uint64_t start_words[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
#define PARAMETERS 0x01010008 /* no key, a digest of 8 bytes, one leaf */

/* The order in which a round takes the words of the block; rounds 10 and 11 are as 0 and 1. */
static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

INLINE void mix(words *a, words *b, words *c, words *d, words x, words y) {
    *a += *b + x, *d ^= *a, *d = *d >> 32 | *d << 32;
    *c += *d, *b ^= *c, *b = *b >> 24 | *b << 40;
    *a += *b + y, *d ^= *a, *d = *d >> 16 | *d << 48;
    *c += *d, *b ^= *c, *b = *b >> 63 | *b << 1;
}

/* One block of each lane. `counted`: bytes of the key up to its end; `last`: all bits set if it is the last block;
 * `active`: all bits set where the state changes. */
INLINE void compress(words *h, const words *m, words counted, words last, words active) {
    words v[16];
    for (int i = 0; i < 8; i++) v[i] = h[i], v[i + 8] = start_words[i] - (words){0};
    v[12] ^= counted, v[14] ^= last;
#pragma GCC unroll 12
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = order[round % 10];
        mix(v, v + 4, v + 8, v + 12, m[s[0]], m[s[1]]);
        mix(v + 1, v + 5, v + 9, v + 13, m[s[2]], m[s[3]]);
        mix(v + 2, v + 6, v + 10, v + 14, m[s[4]], m[s[5]]);
        mix(v + 3, v + 7, v + 11, v + 15, m[s[6]], m[s[7]]);
        mix(v, v + 5, v + 10, v + 15, m[s[8]], m[s[9]]);
        mix(v + 1, v + 6, v + 11, v + 12, m[s[10]], m[s[11]]);
        mix(v + 2, v + 7, v + 8, v + 13, m[s[12]], m[s[13]]);
        mix(v + 3, v + 4, v + 9, v + 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) h[i] ^= (v[i] ^ v[i + 8]) & active;
}

/* The bytes from `at` on, up to `size` of them, as a little-endian integer. Where 8 bytes can be read, the others are
 * masked: a copy of a length that the compiler does not know is a call. */
INLINE uint64_t word_at(const uint8_t *content, int64_t length, int64_t at, int64_t size) {
    uint64_t word = 0;
    if (at + 8 <= length)
        memcpy(&word, content + at, 8);
    else
        for (int64_t i = 0; i < size; i++) word |= (uint64_t)content[at + i] << 8 * i;
    return size >= 8 ? word : word & (((uint64_t)1 << 8 * size) - 1);
}

/* Up to KEYS keys; further lanes are empty keys. */
INLINE void hash_lanes(const uint8_t *content, int64_t length, const int64_t *begins, const int64_t *sizes,
                       uint64_t *digests) {
    words h[8];
    int64_t blocks = 1;
    for (int lane = 0; lane < KEYS; lane++)
        if (sizes[lane] > blocks * BLOCK) blocks = (sizes[lane] + BLOCK - 1) / BLOCK;
    for (int i = 0; i < 8; i++) h[i] = (start_words[i] ^ (i ? 0 : PARAMETERS)) - (words){0};
    for (int64_t block = 0; block < blocks; block++) {
        words m[16] = {{0}}, counted, last, active;
        for (int lane = 0; lane < KEYS; lane++) {
            int64_t at = block * BLOCK, left = sizes[lane] - at, size = left > BLOCK ? BLOCK : left;
            active[lane] = block == 0 || left > 0 ? ~(uint64_t)0 : 0;
            last[lane] = left <= BLOCK ? ~(uint64_t)0 : 0;
            counted[lane] = left <= BLOCK ? sizes[lane] : at + BLOCK;
            for (int64_t i = 0; i < size; i += 8)
                ((uint64_t *)&m[i / 8])[lane] = word_at(content, length, begins[lane] + at + i, size - i);
        }
        compress(h, m, counted, last, active);
    }
    for (int lane = 0; lane < KEYS; lane++) digests[lane] = __builtin_bswap64(h[0][lane]);
}

INLINE void hash_all(const uint8_t *content, int64_t length, const int64_t *starts, const int64_t *ends, int64_t count,
                     uint64_t *digests) {
    for (int64_t first = 0; first < count; first += KEYS) {
        int64_t begins[KEYS] = {0}, sizes[KEYS] = {0}, lanes = count - first < KEYS ? count - first : KEYS;
        uint64_t found[KEYS];
        for (int64_t lane = 0; lane < lanes; lane++) {
            begins[lane] = starts[first + lane];
            sizes[lane] = ends[first + lane] - begins[lane];
        }
        hash_lanes(content, length, begins, sizes, found);
        memcpy(digests + first, found, lanes * sizeof *digests);
    }
}

#define PARAMETERS_OF_HASH                                                                                             \
    const uint8_t *content, int64_t length, const int64_t *starts, const int64_t *ends, int64_t count, uint64_t *digests

static void hash_on_any(PARAMETERS_OF_HASH) { hash_all(content, length, starts, ends, count, digests); }

#ifdef __x86_64__
__attribute__((target("avx2")))
static void hash_on_avx2(PARAMETERS_OF_HASH) { hash_all(content, length, starts, ends, count, digests); }

__attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512dq")))
static void hash_on_avx512(PARAMETERS_OF_HASH) { hash_all(content, length, starts, ends, count, digests); }
#else
#define hash_on_avx2 hash_on_any
#define hash_on_avx512 hash_on_any
#endif

/* Keys, each from its start to its end within a content of `length` bytes -> their digests. `version` is at most
 * `inferd_version()`. */
void inferd_hash_keys(PARAMETERS_OF_HASH, int32_t version) {
    (version == 2 ? hash_on_avx512 : version == 1 ? hash_on_avx2 : hash_on_any)(content, length, starts, ends, count,
                                                                               digests);
}

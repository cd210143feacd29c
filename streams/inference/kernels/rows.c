/* Rows of requests, in JSON or MessagePack, by name or by position -> float64 rows.
 *
 * A row is either read exactly as the typed decoder reads it, or left to that decoder, which alone decides what is an
 * error. Left to it is everything unusual: unknown, repeated and missing names, escapes in strings, text that is no
 * category, numbers that are not surely rounded right, and whatever is malformed.
 *
 * rows.py makes the schema and checks all sizes and indices in it. Nothing is assumed about the rows.
 */

enum { MSGPACK, JSON };
enum { TEXT, NUMBER, BOOLEAN, MISSING };

#define NAMES (-1)                          /* the owner of the entries that are names of features */
#define INTEGER_MAX 9007199254740992.0      /* 2^53: above, different integers are the same float64 */
#define MISSING_BITS 0x7FF8000000000000ull  /* Python's nan */
#define POWER_MIN (-342)
#define POWER_MAX 308

typedef struct {
    int64_t at, length; /* of its bytes; a length of -1: it is never found */
    int64_t owner;      /* NAMES; of categories: 4 * feature + kind */
    double code;
} entry;

typedef struct {
    int64_t features, width, entries, slots, text_max;
    int64_t unknown_is_missing;
    const int32_t *order;      /* the feature at each place of a positional row, (width,) */
    const uint8_t *omissible;  /* whether a row by name may lack it, (features,) */
    const uint8_t *by_category;
    const entry *entry;        /* the first ones are the features' names, in order */
    const int32_t *slot;       /* a hash table of entries, -1 where empty; never full */
    const uint8_t *bytes;
    const uint64_t (*power)[2];
} schema;

typedef struct {
    const uint8_t *at, *end;
} cursor;

typedef struct {
    int32_t kind;
    double number; /* of numbers and booleans */
    const uint8_t *text;
    int64_t length;
} value;

/* ---- bytes */

INLINE uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

INLINE uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

INLINE double float_of_bits(uint64_t bits) {
    double number;
    memcpy(&number, &bits, 8);
    return number;
}

INLINE int same(const uint8_t *a, const uint8_t *b, int64_t length) {
    if (length >= 8) {
        for (int64_t k = 0; k < length - 8; k += 8)
            if (load64(a + k) != load64(b + k)) return 0;
        return load64(a + length - 8) == load64(b + length - 8);
    }
    if (length >= 4) return load32(a) == load32(b) && load32(a + length - 4) == load32(b + length - 4);
    for (int64_t k = 0; k < length; k++)
        if (a[k] != b[k]) return 0;
    return 1;
}

/* ---- the hash table */

INLINE uint64_t hash(const uint8_t *bytes, int64_t length, int64_t owner) {
    uint64_t mixed = 0xCBF29CE484222325ull ^ (uint64_t)owner * 0x9E3779B97F4A7C15ull;
    int64_t k = 0;
    for (; k + 8 <= length; k += 8) {
        mixed = (mixed ^ load64(bytes + k)) * 0x9E3779B97F4A7C15ull;
        mixed ^= mixed >> 29;
    }
    for (; k < length; k++) mixed = (mixed ^ bytes[k]) * 0x100000001B3ull;
    return mixed ^ mixed >> 32;
}

INLINE const entry *find(const schema *s, int64_t owner, const uint8_t *bytes, int64_t length) {
    uint64_t place = hash(bytes, length, owner);
    for (;; place++) {
        int32_t number = s->slot[place & (uint64_t)(s->slots - 1)];
        if (number < 0) return 0;
        const entry *e = s->entry + number;
        if (e->owner == owner && e->length == length && same(s->bytes + e->at, bytes, length)) return e;
    }
}

/* Fills the hash table: `slot` is all -1, with more slots than entries, a power of two. */
void inferd_index_entries(const schema *s, int32_t *slot) {
    for (int64_t number = 0; number < s->entries; number++) {
        const entry *e = s->entry + number;
        if (e->length < 0) continue;
        uint64_t place = hash(s->bytes + e->at, e->length, e->owner);
        while (slot[place & (uint64_t)(s->slots - 1)] >= 0) place++;
        slot[place & (uint64_t)(s->slots - 1)] = (int32_t)number;
    }
}

/* ---- from values to the matrix; all that follows gives 1, or 0 where the row is left to the typed decoder */

/* Whether the typed decoder takes a text that is in no table, and finds it in none either. */
INLINE int is_plain(const value *v) {
    for (int64_t k = 0; k < v->length; k++)
        if (v->text[k] < 0x20 || v->text[k] > 0x7E || v->text[k] == '"' || v->text[k] == '\\') return 0;
    return 1;
}

INLINE int category(const schema *s, int64_t feature, const value *v, double *out) {
    const entry *found;
    *out = float_of_bits(MISSING_BITS);
    if (v->kind == MISSING || (v->kind == NUMBER && v->number != v->number)) return 1;
    if (v->kind == TEXT) {
        found = find(s, 4 * feature + TEXT, v->text, v->length);
    } else {
        double number = v->number == 0.0 ? 0.0 : v->number; /* -0.0 is the category 0 */
        if (number > INTEGER_MAX || number < -INTEGER_MAX) return 0;
        found = find(s, 4 * feature + v->kind, (const uint8_t *)&number, 8);
    }
    if (found) *out = found->code;
    else if (!s->unknown_is_missing || (v->kind == TEXT && !is_plain(v))) return 0;
    return 1;
}

INLINE int place(const schema *s, int64_t feature, const value *v, double *row) {
    if (v->kind == TEXT && v->length > s->text_max) return 0;
    if (s->by_category[feature]) return category(s, feature, v, row + feature);
    if (v->kind == TEXT) return 0;
    row[feature] = v->kind == MISSING ? float_of_bits(MISSING_BITS) : v->number;
    return 1;
}

/* Features that a row did not bring: missing, if all of them may be. `seen[feature]` is `row_number` of those it did. */
INLINE int complete(const schema *s, const int64_t *seen, int64_t row_number, double *row) {
    for (int64_t feature = 0; feature < s->features; feature++)
        if (seen[feature] != row_number) {
            if (!s->omissible[feature]) return 0;
            row[feature] = float_of_bits(MISSING_BITS);
        }
    return 1;
}

/* Features that positional rows never bring; rows.py has checked that all of them may be missing. */
INLINE void blank(const schema *s, double *row) {
    if (s->width < s->features)
        for (int64_t feature = 0; feature < s->features; feature++) row[feature] = float_of_bits(MISSING_BITS);
}

/* Of the names of a row: which feature came at each place of the row before, and which ones came already. */
typedef struct {
    int64_t *guess, *seen, row_number;
} names;

/* ---- JSON numbers */

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* The float64 nearest to digits * 10^exponent, by the algorithm of D. Lemire, "Number Parsing at a Gigabyte per Second"
 * (2021); not where that is subnormal or overflows. `power` has the leading 128 bits of 5^q. */
INLINE int nearest(const schema *s, uint64_t digits, int64_t exponent, double *out) {
    if (digits == 0) {
        *out = 0.0;
        return 1;
    }
    if (exponent >= -22 && exponent <= 22 && digits <= 1ull << 53) {
        *out = exponent < 0 ? (double)digits / TENS[-exponent] : (double)digits * TENS[exponent];
        return 1;
    }
    if (exponent < POWER_MIN || exponent > POWER_MAX) return 0;
    const uint64_t *power = s->power[exponent - POWER_MIN];
    int leading = __builtin_clzll(digits);
    digits <<= leading;
    unsigned __int128 product = (unsigned __int128)digits * power[0];
    if ((uint64_t)(product >> 64 & 0x1FF) == 0x1FF) product += (uint64_t)((unsigned __int128)digits * power[1] >> 64);
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    int upper = (int)(high >> 63), shift = upper + 9;
    uint64_t mantissa = high >> shift;
    int64_t binary = (217706 * exponent >> 16) + 63 + upper - leading + 1023;
    if (binary <= 0) return 0;
    if (low <= 1 && exponent >= -4 && exponent <= 23 && (mantissa & 3) == 1 && mantissa << shift == high)
        mantissa &= ~1ull; /* exactly between two: to the even one */
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if (mantissa >= 1ull << 53) {
        mantissa = 1ull << 52;
        binary++;
    }
    if (binary >= 2047) return 0;
    *out = float_of_bits((mantissa & ((1ull << 52) - 1)) | (uint64_t)binary << 52);
    return 1;
}

INLINE int eight_digits(uint64_t word) {
    return ((word & 0xF0F0F0F0F0F0F0F0ull) | ((word + 0x0606060606060606ull) & 0xF0F0F0F0F0F0F0F0ull) >> 4) ==
           0x3333333333333333ull;
}

INLINE uint64_t value_of_eight(uint64_t word) {
    word -= 0x3030303030303030ull;
    word = word * 10 + (word >> 8);
    return ((word & 0x000000FF000000FFull) * 0x000F424000000064ull +
            (word >> 16 & 0x000000FF000000FFull) * 0x0000271000000001ull) >> 32;
}

/* Appends decimal digits to `sum`, modulo 2^64; how many there are. */
INLINE int64_t digits_of(cursor *c, uint64_t *sum) {
    const uint8_t *first = c->at;
    while (c->end - c->at >= 8 && eight_digits(load64(c->at))) {
        *sum = *sum * 100000000 + value_of_eight(load64(c->at));
        c->at += 8;
    }
    for (; c->at < c->end && (uint8_t)(*c->at - '0') <= 9; c->at++) *sum = *sum * 10 + (uint64_t)(*c->at - '0');
    return c->at - first;
}

/* Digits without the leading zeros of a number that has more than fit. */
static int64_t significant(const uint8_t *at, const uint8_t *end) {
    int64_t count = 0;
    for (; at < end; at++)
        if (*at != '.' && (count || *at != '0')) count++;
    return count;
}

INLINE int json_exponent(cursor *c, int64_t *exponent) {
    int64_t sign = 1, power = 0;
    if (c->at < c->end && (*c->at == '+' || *c->at == '-')) sign = *c->at++ == '-' ? -1 : 1;
    const uint8_t *first = c->at;
    for (; c->at < c->end && (uint8_t)(*c->at - '0') <= 9; c->at++)
        power = power < 100000 ? power * 10 + (*c->at - '0') : power;
    *exponent += sign * power;
    return c->at > first;
}

INLINE int json_number(const schema *s, cursor *c, double *out) {
    uint64_t digits = 0;
    int64_t exponent = 0;
    int negative = c->at < c->end && *c->at == '-', integer = 1;
    c->at += negative;
    const uint8_t *first = c->at;
    int64_t count = digits_of(c, &digits);
    if (count == 0 || (count > 1 && *first == '0')) return 0;
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        int64_t fraction = digits_of(c, &digits);
        if (fraction == 0) return 0;
        count += fraction;
        exponent = -fraction;
        integer = 0;
    }
    if (count > 19 && significant(first, c->at) > 19) return 0; /* more than 64 bits hold */
    if (c->at < c->end && (*c->at | 0x20) == 'e') {
        c->at++;
        integer = 0;
        if (!json_exponent(c, &exponent)) return 0;
    }
    if (!nearest(s, digits, exponent, out)) return 0;
    if (negative && !(integer && digits == 0)) *out = -*out; /* the integer -0 is 0 */
    return 1;
}

/* ---- JSON */

INLINE void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) c->at++;
}

INLINE int json_byte(cursor *c, uint8_t byte) {
    skip_space(c);
    if (c->at >= c->end || *c->at != byte) return 0;
    c->at++;
    return 1;
}

#define EACH(byte) (0x0101010101010101ull * (byte))

/* Of eight bytes, loaded with the first one lowest: the lowest bit that is set belongs to the first byte that is 0. */
INLINE uint64_t has_zero(uint64_t word) { return (word - EACH(1)) & ~word & EACH(0x80); }

/* The same for the first byte that ends a string, escapes something, or may not be in a string. */
INLINE uint64_t leaves_text(uint64_t word) {
    uint64_t control = (word - EACH(0x20)) & ~word & EACH(0x80);
    return has_zero(word ^ EACH('"')) | has_zero(word ^ EACH('\\')) | control;
}

/* Skips bytes that are none of those that `found` finds, as far as eight can be read. */
INLINE void skip_until(cursor *c, uint64_t (*found)(uint64_t)) {
    for (; c->end - c->at >= 8; c->at += 8) {
        uint64_t bits = found(load64(c->at));
        if (bits) {
            c->at += __builtin_ctzll(bits) / 8;
            return;
        }
    }
}

/* A string without escapes, behind its opening quote. */
INLINE int json_text(cursor *c, const uint8_t **text, int64_t *length) {
    *text = c->at;
    skip_until(c, leaves_text);
    for (; c->at < c->end; c->at++) {
        if (*c->at == '"') {
            *length = c->at++ - *text;
            return 1;
        }
        if (*c->at == '\\' || *c->at < 0x20) return 0;
    }
    return 0;
}

INLINE int json_word(cursor *c, const char *word, int64_t length) {
    if (c->end - c->at < length || memcmp(c->at, word, (size_t)length)) return 0;
    c->at += length;
    return 1;
}

INLINE int json_value(const schema *s, cursor *c, value *v) {
    skip_space(c);
    if (c->at >= c->end) return 0;
    switch (*c->at) {
        case '"':
            c->at++;
            v->kind = TEXT;
            return json_text(c, &v->text, &v->length);
        case 'n':
            v->kind = MISSING;
            return json_word(c, "null", 4);
        case 't':
            v->kind = BOOLEAN;
            v->number = 1.0;
            return json_word(c, "true", 4);
        case 'f':
            v->kind = BOOLEAN;
            v->number = 0.0;
            return json_word(c, "false", 5);
        default:
            v->kind = NUMBER;
            return json_number(s, c, &v->number);
    }
}

/* The feature that a name belongs to, behind the opening quote; -1 if none. */
INLINE int64_t json_name(const schema *s, cursor *c, int64_t *guess) {
    const entry *e = s->entry + *guess;
    /* The closing quote is compared, too: no longer name begins like this one. */
    if (e->length >= 0 && e->length < c->end - c->at && c->at[e->length] == '"' &&
        same(s->bytes + e->at, c->at, e->length)) {
        c->at += e->length + 1;
        return *guess;
    }
    const uint8_t *text;
    int64_t length;
    if (!json_text(c, &text, &length) || !(e = find(s, NAMES, text, length))) return -1;
    return *guess = e - s->entry;
}

INLINE int json_named(const schema *s, cursor *c, names *n, double *row) {
    value v;
    int64_t count = 0;
    if (json_byte(c, '}')) return complete(s, n->seen, n->row_number, row);
    do {
        if (count == s->features || !json_byte(c, '"')) return 0;
        int64_t feature = json_name(s, c, n->guess + count++);
        if (feature < 0 || n->seen[feature] == n->row_number) return 0;
        n->seen[feature] = n->row_number;
        if (!json_byte(c, ':') || !json_value(s, c, &v) || !place(s, feature, &v, row)) return 0;
    } while (json_byte(c, ','));
    if (!json_byte(c, '}')) return 0;
    return count == s->features || complete(s, n->seen, n->row_number, row);
}

INLINE int json_listed(const schema *s, cursor *c, double *row) {
    value v;
    blank(s, row);
    for (int64_t k = 0; k < s->width; k++) {
        if (k && !json_byte(c, ',')) return 0;
        if (!json_value(s, c, &v) || !place(s, s->order[k], &v, row)) return 0;
    }
    return json_byte(c, ']');
}

INLINE int json_row(const schema *s, cursor *c, names *n, double *row) {
    return json_byte(c, '{') ? json_named(s, c, n, row) : json_byte(c, '[') && json_listed(s, c, row);
}

/* ---- MessagePack: https://github.com/msgpack/msgpack/blob/master/spec.md */

INLINE int big_endian(cursor *c, int64_t width, uint64_t *bits) {
    if (c->end - c->at < width) return 0;
    if (width == 8) {
        *bits = __builtin_bswap64(load64(c->at));
    } else {
        *bits = 0;
        for (int64_t k = 0; k < width; k++) *bits = *bits << 8 | c->at[k];
    }
    c->at += width;
    return 1;
}

/* A string of up to 65,535 bytes. */
INLINE int msgpack_text(cursor *c, const uint8_t **text, int64_t *length) {
    uint64_t size;
    if (c->at >= c->end) return 0;
    uint8_t byte = *c->at++;
    if ((byte & 0xE0) == 0xA0) size = byte & 0x1F;
    else if ((byte != 0xD9 && byte != 0xDA) || !big_endian(c, byte - 0xD8, &size)) return 0;
    if (c->end - c->at < (int64_t)size) return 0;
    *text = c->at;
    *length = (int64_t)size;
    c->at += size;
    return 1;
}

INLINE int msgpack_float(cursor *c, int64_t width, double *out) {
    uint64_t bits;
    float narrow;
    if (!big_endian(c, width, &bits)) return 0;
    if (width == 8) {
        *out = float_of_bits(bits);
        return 1;
    }
    uint32_t low = (uint32_t)bits;
    memcpy(&narrow, &low, 4);
    *out = (double)narrow;
    return 1;
}

INLINE int msgpack_integer(cursor *c, uint8_t byte, double *out) {
    uint64_t bits;
    int64_t width = 1ll << (byte & 3);
    if (!big_endian(c, width, &bits)) return 0;
    int shift = 64 - 8 * (int)width;
    *out = byte < 0xD0 ? (double)bits : (double)((int64_t)(bits << shift) >> shift);
    return 1;
}

INLINE int msgpack_value(cursor *c, value *v) {
    if (c->at >= c->end) return 0;
    uint8_t byte = *c->at;
    v->kind = NUMBER;
    if ((byte & 0xE0) == 0xA0 || byte == 0xD9 || byte == 0xDA) {
        v->kind = TEXT;
        return msgpack_text(c, &v->text, &v->length);
    }
    c->at++;
    if (byte == 0xCB || byte == 0xCA) return msgpack_float(c, byte == 0xCB ? 8 : 4, &v->number);
    if (byte >= 0xCC && byte <= 0xD3) return msgpack_integer(c, byte, &v->number);
    if (byte == 0xC0) v->kind = MISSING;
    else if (byte == 0xC2 || byte == 0xC3) v->kind = BOOLEAN;
    else if (byte >= 0x80 && byte < 0xE0) return 0;
    v->number = v->kind == BOOLEAN ? byte - 0xC2 : (int8_t)byte;
    return 1;
}

/* The number of items of a container whose short header is `fixed`, and whose header of two bytes is `wide`. */
INLINE int msgpack_count(cursor *c, uint8_t fixed, uint8_t wide, uint64_t *count) {
    if (c->at >= c->end) return 0;
    uint8_t byte = *c->at++;
    *count = byte & 0x0F;
    return (byte & 0xF0) == fixed || (byte == wide && big_endian(c, 2, count));
}

INLINE int64_t msgpack_name(const schema *s, cursor *c, int64_t *guess) {
    const uint8_t *text;
    int64_t length;
    const entry *e = s->entry + *guess;
    if (!msgpack_text(c, &text, &length)) return -1;
    if (e->length == length && same(s->bytes + e->at, text, length)) return *guess;
    if (!(e = find(s, NAMES, text, length))) return -1;
    return *guess = e - s->entry;
}

INLINE int msgpack_named(const schema *s, cursor *c, names *n, double *row) {
    value v;
    uint64_t count;
    if (!msgpack_count(c, 0x80, 0xDE, &count) || (int64_t)count > s->features) return 0;
    for (uint64_t k = 0; k < count; k++) {
        int64_t feature = msgpack_name(s, c, n->guess + k);
        if (feature < 0 || n->seen[feature] == n->row_number) return 0;
        n->seen[feature] = n->row_number;
        if (!msgpack_value(c, &v) || !place(s, feature, &v, row)) return 0;
    }
    return (int64_t)count == s->features || complete(s, n->seen, n->row_number, row);
}

INLINE int msgpack_listed(const schema *s, cursor *c, double *row) {
    value v;
    uint64_t count;
    if (!msgpack_count(c, 0x90, 0xDC, &count) || (int64_t)count != s->width) return 0;
    blank(s, row);
    for (uint64_t k = 0; k < count; k++)
        if (!msgpack_value(c, &v) || !place(s, s->order[k], &v, row)) return 0;
    return 1;
}

INLINE int msgpack_row(const schema *s, cursor *c, names *n, double *row) {
    if (c->at >= c->end) return 0;
    int is_list = (*c->at & 0xF0) == 0x90 || *c->at == 0xDC;
    return is_list ? msgpack_listed(s, c, row) : msgpack_named(s, c, n, row);
}

/* ---- rows one after the other */

/* What `names` needs for a schema, to be freed; null if memory ran out. */
static int64_t *start_names(const schema *s, names *n) {
    int64_t *room = malloc((size_t)s->features * 2 * sizeof(int64_t));
    if (!room) return room;
    *n = (names){room, room + s->features, 0};
    for (int64_t feature = 0; feature < s->features; feature++) {
        n->guess[feature] = feature;
        n->seen[feature] = -1;
    }
    return room;
}

/* Each row that is tried has a number of its own in `n`. */
INLINE int next_row(const schema *s, int32_t encoding, cursor *c, names *n, double *row) {
    int read = encoding == JSON ? json_row(s, c, n, row) : msgpack_row(s, c, n, row);
    n->row_number++;
    return read;
}

/* ---- entry point */

/* Rows `bytes[starts[k] .. ends[k]]` -> float64 rows of `matrix`, one after the other, of those that could be read;
 * how many, or -1 if memory ran out. `fits[k]` says which: it is 1 or 0. */
int64_t inferd_read_rows(const schema *s, int32_t encoding, const uint8_t *bytes, const int64_t *starts,
                         const int64_t *ends, int64_t count, double *matrix, uint8_t *fits) {
    names n;
    int64_t *room = start_names(s, &n), read = 0;
    if (!room) return -1;
    cursor c = {bytes, bytes};
    for (int64_t k = 0; k < count; k++) {
        c.at = bytes + starts[k];
        c.end = bytes + ends[k];
        int fit = next_row(s, encoding, &c, &n, matrix + read * s->features);
        if (encoding == JSON) skip_space(&c);
        fits[k] = fit = fit && c.at == c.end;
        read += fit;
    }
    free(room);
    return read;
}

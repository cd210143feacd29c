/* Results of requests to one version, and records for a record batch in the format v2, from parts that are given.
 * https://kafka.apache.org/documentation/#record
 *
 * Where parts come from, `inferd_parts_bytes` and `inferd_records_bytes` check that they are within their bytes, and
 * results.py makes room for what is written.
 */

typedef struct {
    const uint8_t *bytes;
    const int64_t *starts, *ends; /* a part that ends before it starts is null */
    int64_t size, count;          /* of the bytes, and of the parts */
} parts;

#define OUTSIDE (-1)

/* Bytes of part k; OUTSIDE if it is null or not within the bytes. */
INLINE int64_t checked_part(const parts *p, int64_t k) {
    int64_t start = p->starts[k], end = p->ends[k];
    return start >= 0 && start <= end && end <= p->size ? end - start : OUTSIDE;
}

/* The same, but none of a null. */
INLINE int64_t checked_or_null(const parts *p, int64_t k) { return p->ends[k] < p->starts[k] ? 0 : checked_part(p, k); }

/* Bytes of all parts; OUTSIDE if any is null or not within the bytes. */
int64_t inferd_parts_bytes(const parts *p) {
    int64_t sum = 0;
    for (int64_t k = 0; k < p->count; k++) {
        int64_t length = checked_part(p, k);
        if (length < 0) return OUTSIDE;
        sum += length;
    }
    return sum;
}

INLINE uint8_t *put(uint8_t *to, const uint8_t *from, int64_t length) {
    memcpy(to, from, (size_t)length);
    return to + length;
}

INLINE uint8_t *put_part(uint8_t *to, const parts *p, int64_t k) {
    return put(to, p->bytes + p->starts[k], p->ends[k] - p->starts[k]);
}

/* ---- results */

typedef struct {
    const uint8_t *bytes;
    int64_t length;
} piece;

/* A text of ASCII that needs no escapes. */
INLINE uint8_t *put_text(uint8_t *to, int32_t encoding, const parts *p, int64_t k) {
    int64_t length = p->ends[k] - p->starts[k];
    if (encoding == JSON) {
        *to++ = '"';
        to = put_part(to, p, k);
        *to++ = '"';
        return to;
    }
    if (length < 32) {
        *to++ = (uint8_t)(0xA0 | length);
    } else if (length < 256) {
        *to++ = 0xD9;
        *to++ = (uint8_t)length;
    } else {
        *to++ = 0xDA;
        *to++ = (uint8_t)(length >> 8);
        *to++ = (uint8_t)length;
    }
    return put_part(to, p, k);
}

/* `pieces[0]`, the id, `pieces[1]`, the value and `pieces[2]`, for each request, one after the other;
 * `ends[k]` is the end of result k. */
void inferd_join_results(int32_t encoding, const piece *pieces, const parts *ids, const parts *values, uint8_t *out,
                         int64_t *ends) {
    uint8_t *to = out;
    for (int64_t k = 0; k < ids->count; k++) {
        to = put(to, pieces[0].bytes, pieces[0].length);
        to = put_text(to, encoding, ids, k);
        to = put(to, pieces[1].bytes, pieces[1].length);
        to = put_part(to, values, k);
        to = put(to, pieces[2].bytes, pieces[2].length);
        ends[k] = to - out;
    }
}

/* ---- records */

INLINE int64_t varint_size(int64_t number) {
    int64_t size = 1;
    for (uint64_t bits = (uint64_t)number << 1; bits > 0x7F; bits >>= 7) size++;
    return size;
}

/* A number that is not negative. */
INLINE uint8_t *put_varint(uint8_t *to, int64_t number) {
    uint64_t bits = (uint64_t)number << 1;
    for (; bits > 0x7F; bits >>= 7) *to++ = (uint8_t)(bits | 0x80);
    *to++ = (uint8_t)bits;
    return to;
}

INLINE int64_t sized_bytes(const parts *p, int64_t k) {
    int64_t length = p->ends[k] - p->starts[k];
    return length < 0 ? 1 : varint_size(length) + length;
}

INLINE uint8_t *put_sized(uint8_t *to, const parts *p, int64_t k) {
    if (p->ends[k] < p->starts[k]) {
        *to++ = 1; /* -1 */
        return to;
    }
    return put_part(put_varint(to, p->ends[k] - p->starts[k]), p, k);
}

/* The headers of record k: `before[kinds[k]]`, those of its own, `between`, the number as the text of a value, and
 * `after[kinds[k]]`; all encoded. `between` ends with the name that the number belongs to. */
typedef struct {
    parts before, after;
    const int64_t *counts; /* by kind: all headers but those of a record's own */
    const int64_t *kinds;
    parts own; /* none if no record has any */
    const int64_t *own_counts;
    piece between;
    const int64_t *numbers;
} header_columns;

typedef struct {
    uint8_t text[20]; /* of a number that is not negative */
    int64_t length;
} digits;

INLINE digits decimal(int64_t number) {
    digits d = {{0}, 0};
    uint8_t reversed[20];
    do reversed[d.length++] = (uint8_t)('0' + number % 10);
    while (number /= 10);
    for (int64_t k = 0; k < d.length; k++) d.text[k] = reversed[d.length - 1 - k];
    return d;
}

INLINE int64_t part_bytes(const parts *p, int64_t k) { return p->ends[k] - p->starts[k]; }

#define RECORD_HEAD_BYTES 32 /* at most: its length and offset, two bytes, and three lengths */
#define NUMBER_BYTES 20      /* at most, with its length */

INLINE int64_t kind_bytes(const header_columns *h, int64_t kind) {
    int64_t before = checked_part(&h->before, kind), after = checked_part(&h->after, kind);
    return before < 0 || after < 0 || h->counts[kind] < 0 ? OUTSIDE : before + after;
}

/* An upper bound of the bytes of the records `first` to `count`; OUTSIDE if any of their parts is, or a number is
 * negative. */
int64_t inferd_records_bytes(const parts *keys, const parts *values, const header_columns *h, int64_t first,
                             int64_t count) {
    int64_t sum = 0;
    for (int64_t kind = 0; kind < h->before.count; kind++)
        if (kind_bytes(h, kind) < 0) return OUTSIDE;
    for (int64_t k = first; k < count; k++) {
        int64_t kind = h->kinds[k];
        if (kind < 0 || kind >= h->before.count || h->numbers[k] < 0) return OUTSIDE;
        int64_t key = checked_or_null(keys, k), value = checked_or_null(values, k), own = 0;
        if (h->own.count && ((own = checked_part(&h->own, k)) < 0 || h->own_counts[k] < 0)) return OUTSIDE;
        if (key < 0 || value < 0) return OUTSIDE;
        sum += RECORD_HEAD_BYTES + key + value + own + kind_bytes(h, kind) + h->between.length + NUMBER_BYTES;
    }
    return sum;
}

/* Writes the records `first` to `count`, as many as fit into `room` bytes; returns the index of the first one that does
 * not fit. The length of what was written goes to `length`. */
int64_t inferd_write_records(const parts *keys, const parts *values, const header_columns *h, int64_t first,
                             int64_t count, int64_t room, uint8_t *out, int64_t *length) {
    uint8_t *to = out;
    int64_t k = first;
    for (; k < count; k++) {
        int64_t kind = h->kinds[k], headers = h->counts[kind] + (h->own.count ? h->own_counts[k] : 0);
        int64_t own_bytes = h->own.count ? part_bytes(&h->own, k) : 0;
        digits number = decimal(h->numbers[k]);
        int64_t header_bytes = varint_size(headers) + part_bytes(&h->before, kind) + own_bytes + h->between.length +
                               1 + number.length + part_bytes(&h->after, kind);
        int64_t size = 2 + varint_size(k - first) + sized_bytes(keys, k) + sized_bytes(values, k) + header_bytes;
        if (varint_size(size) + size > room - (to - out)) break;
        to = put_varint(to, size);
        *to++ = 0; /* attributes */
        *to++ = 0; /* after the timestamp of the batch */
        to = put_varint(to, k - first);
        to = put_sized(to, keys, k);
        to = put_sized(to, values, k);
        to = put_part(put_varint(to, headers), &h->before, kind);
        if (own_bytes) to = put_part(to, &h->own, k);
        to = put(to, h->between.bytes, h->between.length);
        to = put(put_varint(to, number.length), number.text, number.length);
        to = put_part(to, &h->after, kind);
    }
    *length = to - out;
    return k;
}

/* ---- equal parts */

/* `numbers[k]`: the number of part k among the parts that differ, of which `first[number]` is the first; returns how
 * many differ, or -1 if they are more than `most`. */
int64_t inferd_number_parts(const parts *p, int64_t most, int64_t *first, int64_t *numbers) {
    int64_t found = 0, guess = 0;
    for (int64_t k = 0; k < p->count; k++) {
        const uint8_t *text = p->bytes + p->starts[k];
        int64_t length = p->ends[k] - p->starts[k], number = -1;
        for (int64_t n = 0; n < found && number < 0; n++) {
            int64_t tried = (guess + n) % found, other = first[tried];
            if (p->ends[other] - p->starts[other] == length && same(p->bytes + p->starts[other], text, length))
                number = tried;
        }
        if (number < 0) {
            if (found == most) return -1;
            first[number = found++] = k;
        }
        numbers[k] = guess = number;
    }
    return found;
}

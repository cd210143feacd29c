/* Record batches in the format v2, uncompressed -> where the parts of each record are.
 * https://kafka.apache.org/documentation/#record
 *
 * A batch is read completely, or not at all: everything unusual is left to the reader in Python. The batch is untrusted.
 */

typedef struct {
    int64_t offset, timestamp;
    int64_t key_at, key_length; /* -1: null */
    int64_t value_at, value_length;
    int64_t headers_at, headers_length, headers; /* behind their count, and the count */
} record;

INLINE int zigzag(cursor *c, int64_t *number) {
    uint64_t bits = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (c->at >= c->end) return 0;
        uint8_t byte = *c->at++;
        bits |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *number = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return 1;
        }
    }
    return 0;
}

/* Bytes with their length before them; -1: null. */
INLINE int sized(cursor *c, const uint8_t **at, int64_t *length) {
    if (!zigzag(c, length) || *length < -1 || *length > c->end - c->at) return 0;
    *at = c->at;
    if (*length > 0) c->at += *length;
    return 1;
}

INLINE int batch_headers(cursor *c, int64_t count) {
    const uint8_t *text;
    int64_t length;
    for (int64_t k = 0; k < count; k++) {
        if (!sized(c, &text, &length) || length < 0 || !is_utf8(text, length)) return 0;
        if (!sized(c, &text, &length)) return 0;
    }
    return 1;
}

INLINE int batch_record(const uint8_t *bytes, cursor *c, record *r, int64_t headers_max) {
    int64_t length, timestamp, offset;
    const uint8_t *at, *end = c->end;
    if (!zigzag(c, &length) || length < 0 || length > end - c->at) return 0;
    cursor one = {c->at + 1, c->at + length}; /* behind its attributes, none of which are in use */
    c->at += length;
    if (length < 1 || !zigzag(&one, &timestamp) || !zigzag(&one, &offset)) return 0;
    r->offset += offset;
    r->timestamp += timestamp;
    if (!sized(&one, &at, &r->key_length)) return 0;
    r->key_at = at - bytes;
    if (!sized(&one, &at, &r->value_length)) return 0;
    r->value_at = at - bytes;
    if (!zigzag(&one, &r->headers) || r->headers < 0 || r->headers > headers_max) return 0;
    r->headers_at = one.at - bytes;
    r->headers_length = one.end - one.at;
    return batch_headers(&one, r->headers) && one.at == one.end;
}

/* Reads `count` records from `at` to `end` into `out`; returns 1, or 0 if the batch is unusual. Offsets have to rise from
 * `offset` on, and to stay below `offset_end`. */
int32_t inferd_scan_batch(const uint8_t *bytes, int64_t at, int64_t end, int64_t count, int64_t offset, int64_t offset_end,
                          int64_t timestamp, int64_t headers_max, record *out) {
    cursor c = {bytes + at, bytes + end};
    int64_t due = offset;
    for (int64_t k = 0; k < count; k++) {
        out[k].offset = offset;
        out[k].timestamp = timestamp;
        if (!batch_record(bytes, &c, out + k, headers_max) || out[k].offset < due || out[k].offset >= offset_end) return 0;
        due = out[k].offset + 1;
    }
    return c.at == c.end;
}

/* ---- many batches */

#define BATCH_PREFIX_BYTES 12 /* base offset and length */
#define BATCH_HEADER_BYTES 61
#define RECORD_BYTES_MIN 7
#define BROKER_TIMESTAMP 8 /* the only bit of the attributes that a usual batch may have */

typedef struct {
    int64_t offset, end, offset_end, timestamp, count;
} batch_head;

INLINE int64_t signed_at(const uint8_t *at, int width) {
    uint64_t bits = 0;
    for (int k = 0; k < width; k++) bits = bits << 8 | at[k];
    return (int64_t)(bits << (64 - 8 * width)) >> (64 - 8 * width);
}

/* Whether there is a whole batch at `at`, uncompressed, of no transaction, whose numbers can be right. */
INLINE int is_usual_batch(const uint8_t *bytes, int64_t at, int64_t end, batch_head *h) {
    const uint8_t *head = bytes + at;
    if (end - at < BATCH_HEADER_BYTES || head[16] != 2 || head[21] || head[22] & ~BROKER_TIMESTAMP) return 0;
    int64_t length = signed_at(head + 8, 4), last = signed_at(head + 23, 4);
    if (length < BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES || length > end - at - BATCH_PREFIX_BYTES) return 0;
    h->end = at + BATCH_PREFIX_BYTES + length;
    h->offset = signed_at(head, 8);
    h->offset_end = h->offset + last + 1;
    h->timestamp = signed_at(head + (head[22] & BROKER_TIMESTAMP ? 35 : 27), 8);
    h->count = signed_at(head + 57, 4);
    if (h->offset < 0 || h->offset >> 62 || h->count < 0 || h->count > last + 1) return 0;
    return h->count * RECORD_BYTES_MIN <= h->end - at - BATCH_HEADER_BYTES;
}

/* How many records the usual batches from `at` on claim, up to the first other one, and of `batches_max` at most. */
int64_t inferd_count_records(const uint8_t *bytes, int64_t at, int64_t end, int64_t batches_max) {
    int64_t count = 0;
    for (batch_head h; batches_max-- > 0 && is_usual_batch(bytes, at, end, &h); at = h.end) count += h.count;
    return count;
}

/* Reads the same batches, whose checksums must be right if `check` is not 0, up to the first one that
 * cannot be read; returns its position. `out` has room for all records that they claim; `found` is how many were read,
 * and `offset_end` the offset behind them. */
int64_t inferd_scan_batches(const uint8_t *bytes, int64_t at, int64_t end, int64_t batches_max,
                            int64_t headers_max, int32_t check, record *out, int64_t *found,
                            int64_t *offset_end) {
    *found = *offset_end = 0;
    for (batch_head h; batches_max-- > 0 && is_usual_batch(bytes, at, end, &h); at = h.end) {
        record *first = out + *found;
        if (h.offset < *offset_end) break;
        if (check && inferd_crc32c(bytes, at + 21, h.end) != (int64_t)(uint32_t)signed_at(bytes + at + 17, 4)) break;
        if (!inferd_scan_batch(bytes, at + BATCH_HEADER_BYTES, h.end, h.count, h.offset, h.offset_end, h.timestamp, headers_max, first))
            break;
        if (bytes[at + 22] & BROKER_TIMESTAMP)
            for (int64_t k = 0; k < h.count; k++) first[k].timestamp = h.timestamp;
        *found += h.count;
        *offset_end = h.offset_end;
    }
    return at;
}

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

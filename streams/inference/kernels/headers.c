/* Headers of requests, as record batches have them -> those that results propagate unchanged, and those that inferd
 * reads itself; deadlines are read here. schemas/headers.py has the rules.
 *
 * A record is either split as these rules say, or left to them: whatever is unusual or invalid.
 */

#define NAME_BYTES_MAX 64
#define DEADLINE_DIGITS_MAX 15
#define DEADLINE_MS_MAX 253402300799999 /* the last millisecond of the year 9999 */
#define TRACEPARENT_BYTES 55            /* of version 00, up to its flags */

enum { LEFT = 0, SPLIT = 1, MAY_BE_SAMPLED = 2 }; /* in `found` */
enum { PROPAGATED, READ, IS_DEADLINE, IS_TRACEPARENT, STRANGE };

typedef struct {
    int64_t headers, header_bytes, bytes;
} header_limits;

/* Headers of all records, one record after the other: `ends[k]` is the end of those of record k, and `counts[k]` how
 * many they are. */
typedef struct {
    uint8_t *to;
    uint8_t *bytes;
    int64_t *ends, *counts;
} header_column;

INLINE int starts_with(const uint8_t *name, int64_t length, const char *prefix) {
    int64_t size = (int64_t)strlen(prefix);
    return length >= size && !memcmp(name, prefix, (size_t)size);
}

INLINE int is_name(const uint8_t *name, int64_t length, const char *other) {
    return length == (int64_t)strlen(other) && starts_with(name, length, other);
}

/* What is done with a header of this name, whose case is ignored. */
INLINE int use_of(const uint8_t *name, int64_t length) {
    uint8_t lower[NAME_BYTES_MAX];
    if (length > NAME_BYTES_MAX) return STRANGE;
    for (int64_t k = 0; k < length; k++) {
        if (name[k] >= 0x80) return STRANGE;
        lower[k] = (uint8_t)(name[k] + ((uint8_t)(name[k] - 'A') < 26 ? 'a' - 'A' : 0));
    }
    if (is_name(lower, length, "deadline")) return IS_DEADLINE;
    if (is_name(lower, length, "traceparent")) return IS_TRACEPARENT;
    if (is_name(lower, length, "reply-to") || is_name(lower, length, "row-errors")) return READ;
    if (starts_with(lower, length, "content-") || starts_with(lower, length, "ce_")) return READ;
    if (starts_with(lower, length, "inferd-")) return READ;
    return starts_with(lower, length, "inference-header-content-length") ? READ : PROPAGATED;
}

/* -1 if it is none. */
INLINE int64_t deadline_of(const uint8_t *text, int64_t length) {
    int64_t number = 0;
    if (length < 1 || length > DEADLINE_DIGITS_MAX) return -1;
    for (int64_t k = 0; k < length; k++) {
        if ((uint8_t)(text[k] - '0') > 9) return -1;
        number = number * 10 + (text[k] - '0');
    }
    return number <= DEADLINE_MS_MAX ? number : -1;
}

/* Whether the flags may say so: the tracer decides. */
INLINE int may_be_sampled(const uint8_t *text, int64_t length) {
    return length >= TRACEPARENT_BYTES && ((uint8_t)(text[TRACEPARENT_BYTES - 1] - '0') > 9 || (text[TRACEPARENT_BYTES - 1] & 1));
}

INLINE void put_header(header_column *column, const uint8_t *name, int64_t name_length, const uint8_t *text,
                       int64_t length) {
    column->to = put(put_varint(column->to, name_length), name, name_length);
    if (length < 0) *column->to++ = 1; /* -1 */
    else column->to = put(put_varint(column->to, length), text, length);
}

/* Returns what was found. */
INLINE int split_one(cursor *c, int64_t count, const header_limits *limits, header_column *own, header_column *rest,
                     int64_t k, int64_t *deadline) {
    int found = SPLIT;
    int64_t size = 0, name_length, length;
    const uint8_t *name, *text;
    if (count > limits->headers) return LEFT;
    for (int64_t n = 0; n < count; n++) {
        if (!sized(c, &name, &name_length) || name_length < 0 || !sized(c, &text, &length)) return LEFT;
        int64_t bytes = name_length + (length > 0 ? length : 0);
        if (bytes > limits->header_bytes || (size += bytes) > limits->bytes) return LEFT;
        int use = use_of(name, name_length);
        if (use == STRANGE) return LEFT;
        if (use == IS_DEADLINE) {
            if (length < 0) continue; /* without a value it is ignored */
            if (*deadline >= 0 || (*deadline = deadline_of(text, length)) < 0) return LEFT;
            continue;
        }
        if (use == IS_TRACEPARENT && may_be_sampled(text, length)) found |= MAY_BE_SAMPLED;
        header_column *column = use == READ ? rest : own;
        put_header(column, name, name_length, text, length);
        column->counts[k]++;
    }
    return c->at == c->end ? found : LEFT;
}

/* Splits the headers of records, of which record k has `counts[k]`. `own` and `rest` have room for all of them;
 * a record that is left has none there. `deadlines[k]` is -1 without one. */
void inferd_split_headers(const parts *heads, const int64_t *counts, const header_limits *limits,
                          header_column *own, header_column *rest, int64_t *deadlines, uint8_t *found) {
    own->to = own->bytes;
    rest->to = rest->bytes;
    for (int64_t k = 0; k < heads->count; k++) {
        cursor c = {heads->bytes + heads->starts[k], heads->bytes + heads->ends[k]};
        uint8_t *own_start = own->to, *rest_start = rest->to;
        own->counts[k] = rest->counts[k] = 0;
        deadlines[k] = -1;
        found[k] = (uint8_t)split_one(&c, counts[k], limits, own, rest, k, deadlines + k);
        if (!found[k]) {
            own->to = own_start;
            rest->to = rest_start;
            own->counts[k] = rest->counts[k] = 0;
            deadlines[k] = -1;
        }
        own->ends[k] = own->to - own->bytes;
        rest->ends[k] = rest->to - rest->bytes;
    }
}

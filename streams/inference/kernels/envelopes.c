/* Requests in the plain layout, in JSON or MessagePack -> where their id, model, outputs and rows are.
 *
 * Plain is a map of `model_id`, `input_data` and perhaps `id` and `outputs`, in any order. The id has only allowed
 * characters; a row is a flat list or map, several rows are a list of flat lists or of flat maps; `outputs` is a flat list.
 * A request is either read exactly as the typed decoder reads it, or left to that decoder; the bytes of rows and outputs
 * are not validated here. The input is untrusted.
 */

#define KINDS_MAX 64 /* different kinds of requests in a call; others are not plain */

typedef struct {
    int64_t at, length; /* -1 and 0: none */
} span;

/* What requests have in common that can be scored together. */
typedef struct {
    span model, outputs;
    int64_t listed; /* 1: `input_data` is a list of rows; 0: it is a row */
} kind;

typedef struct {
    int64_t kind; /* its index in the list of kinds; -1: the request is not plain */
    span id;
    span data; /* `input_data` */
    int64_t rows; /* how many it has */
    int64_t row; /* the index of its row among the rows that were read; -1: it was not read */
} envelope;

typedef struct {
    const uint8_t *bytes;
    const uint8_t *is_id; /* (256,): whether an id may have the byte */
    int64_t id_max;
    kind *kind;
    int64_t kinds;
    const schema *schema; /* of the rows that are read with their envelopes; null: none are */
    names names;
    double *matrix;
    int64_t rows; /* so many have been read */
} reading;

INLINE int same_span(const uint8_t *bytes, span a, span b) {
    return a.length == b.length && (a.at < 0) == (b.at < 0) && (a.at < 0 || same(bytes + a.at, bytes + b.at, a.length));
}

INLINE int same_kind(const uint8_t *bytes, const kind *a, const kind *b) {
    return a->listed == b->listed && same_span(bytes, a->model, b->model) && same_span(bytes, a->outputs, b->outputs);
}

/* The index of a kind in the list, to which it is added if it is new; -1 if the list is full. `guess` is tried first: the
 * kind of the request before. */
INLINE int64_t number_of_kind(reading *r, const kind *given, int64_t guess) {
    if (guess < r->kinds && same_kind(r->bytes, r->kind + guess, given)) return guess;
    for (int64_t k = 0; k < r->kinds; k++)
        if (same_kind(r->bytes, r->kind + k, given)) return k;
    if (r->kinds == KINDS_MAX) return -1;
    r->kind[r->kinds] = *given;
    return r->kinds++;
}

INLINE int is_id(const reading *r, const uint8_t *text, int64_t length) {
    if (length < 1 || length > r->id_max) return 0;
    for (int64_t k = 0; k < length; k++)
        if (!r->is_id[text[k]]) return 0;
    return 1;
}

/* ---- values of `input_data` */

/* Finds a quote or a bracket, or a byte with the bits that all four brackets have in common. */
INLINE uint64_t may_matter(uint64_t word) {
    return has_zero(word ^ EACH('"')) | has_zero((word | EACH(0x26)) ^ EACH(0x7F));
}

/* Skips from after the opening bracket to after its closing bracket; 0 if there are other brackets in between. */
INLINE int json_skip_flat(cursor *c, uint8_t close) {
    const uint8_t *text;
    int64_t length;
    for (;;) {
        skip_until(c, may_matter);
        if (c->at >= c->end) return 0;
        uint8_t byte = *c->at++;
        if (byte == close) return 1;
        if (byte == '"' ? !json_text(c, &text, &length) : byte == '[' || byte == '{' || byte == ']' || byte == '}') return 0;
    }
}

INLINE int json_skip_row(cursor *c) {
    if (c->at >= c->end || (*c->at != '[' && *c->at != '{')) return 0;
    uint8_t close = *c->at++ == '[' ? ']' : '}';
    return json_skip_flat(c, close);
}

INLINE int msgpack_skip_row(cursor *c) {
    value v;
    uint64_t count;
    if (c->at >= c->end) return 0;
    int is_list = (*c->at & 0xF0) == 0x90 || *c->at == 0xDC;
    if (!(is_list ? msgpack_count(c, 0x90, 0xDC, &count) : msgpack_count(c, 0x80, 0xDE, &count))) return 0;
    for (uint64_t k = 0; k < count; k++)
        if ((!is_list && !msgpack_text(c, &v.text, &v.length)) || !msgpack_value(c, &v)) return 0;
    return 1;
}

/* Skips a list of rows that are all lists, or all maps: how many these are; 0 if it is no such list. The first `room` of
 * them go to `row`. */
INLINE int64_t json_skip_rows(const uint8_t *bytes, cursor *c, span *row, int64_t room) {
    int64_t count = 0;
    if (!json_byte(c, '[')) return 0;
    skip_space(c);
    if (c->at >= c->end) return 0;
    uint8_t opening = *c->at;
    do {
        skip_space(c);
        const uint8_t *first = c->at;
        if (c->at >= c->end || *c->at != opening || !json_skip_row(c)) return 0;
        if (count < room) row[count] = (span){first - bytes, c->at - first};
        count++;
    } while (json_byte(c, ','));
    return json_byte(c, ']') ? count : 0;
}

INLINE int is_msgpack_map(uint8_t byte) { return (byte & 0xF0) == 0x80 || byte == 0xDE; }

INLINE int64_t msgpack_skip_rows(const uint8_t *bytes, cursor *c, span *row, int64_t room) {
    uint64_t count;
    if (!msgpack_count(c, 0x90, 0xDC, &count) || c->at >= c->end) return 0;
    int maps = is_msgpack_map(*c->at);
    for (int64_t k = 0; k < (int64_t)count; k++) {
        const uint8_t *first = c->at;
        if (c->at >= c->end || is_msgpack_map(*c->at) != maps || !msgpack_skip_row(c)) return 0;
        if (k < room) row[k] = (span){first - bytes, c->at - first};
    }
    return (int64_t)count;
}

INLINE int skip_row(int32_t encoding, cursor *c) {
    return encoding == JSON ? json_skip_row(c) : msgpack_skip_row(c);
}

INLINE int64_t skip_rows(int32_t encoding, const uint8_t *bytes, cursor *c, span *row, int64_t room) {
    return encoding == JSON ? json_skip_rows(bytes, c, row, room) : msgpack_skip_rows(bytes, c, row, room);
}

/* Skips a flat list. */
INLINE int skip_list(int32_t encoding, cursor *c) {
    if (c->at >= c->end || (encoding == JSON ? *c->at != '[' : is_msgpack_map(*c->at))) return 0;
    return skip_row(encoding, c);
}

/* ---- maps */

INLINE int read_text(int32_t encoding, cursor *c, const uint8_t **text, int64_t *length) {
    return encoding == JSON ? json_byte(c, '"') && json_text(c, text, length) : msgpack_text(c, text, length);
}

/* Reads `input_data`. */
INLINE int read_data(reading *r, int32_t encoding, cursor *c, envelope *e, kind *k) {
    const uint8_t *first = c->at;
    e->rows = 1;
    if (r->schema && next_row(r->schema, encoding, c, &r->names, r->matrix + r->rows * r->schema->features)) {
        e->row = r->rows;
    } else {
        c->at = first;
        if (!skip_row(encoding, c)) {
            c->at = first;
            if (!(e->rows = skip_rows(encoding, r->bytes, c, 0, 0))) return 0;
            k->listed = 1;
        }
    }
    e->data = (span){first - r->bytes, c->at - first};
    return 1;
}

INLINE int is_field(const char *name, const uint8_t *text, int64_t length) {
    return length == (int64_t)strlen(name) && !memcmp(text, name, (size_t)length);
}

/* Reads a text that was not there yet into `s`. */
INLINE int read_once(reading *r, int32_t encoding, cursor *c, span *s) {
    const uint8_t *text;
    if (s->at >= 0 || !read_text(encoding, c, &text, &s->length)) return 0;
    s->at = text - r->bytes;
    return 1;
}

/* Reads one field; 0 if it is repeated or unknown. */
INLINE int read_field(reading *r, int32_t encoding, cursor *c, envelope *e, kind *k) {
    const uint8_t *text;
    int64_t length;
    if (!read_text(encoding, c, &text, &length) || (encoding == JSON && !json_byte(c, ':'))) return 0;
    if (is_field("id", text, length))
        return read_once(r, encoding, c, &e->id) && is_id(r, r->bytes + e->id.at, e->id.length);
    if (is_field("model_id", text, length)) return read_once(r, encoding, c, &k->model);
    if (encoding == JSON) skip_space(c);
    if (is_field("input_data", text, length)) return e->data.at < 0 && read_data(r, encoding, c, e, k);
    if (!is_field("outputs", text, length) || k->outputs.at >= 0) return 0;
    text = c->at;
    if (!skip_list(encoding, c)) return 0;
    k->outputs = (span){text - r->bytes, c->at - text};
    return 1;
}

INLINE int read_envelope(reading *r, int32_t encoding, cursor *c, envelope *e, int64_t guess) {
    uint64_t count = 4;
    kind k = {{-1, 0}, {-1, 0}, 0};
    *e = (envelope){-1, {-1, 0}, {-1, 0}, 0, -1};
    if (encoding == JSON ? !json_byte(c, '{') : !msgpack_count(c, 0x80, 0xDE, &count) || count > 4) return 0;
    for (uint64_t field = 0; field < count; field++) {
        if (encoding == JSON && field && !json_byte(c, ',')) break;
        if (!read_field(r, encoding, c, e, &k)) return 0;
    }
    if (encoding == JSON) {
        if (!json_byte(c, '}')) return 0;
        skip_space(c);
    }
    if (c->at != c->end || k.model.at < 0 || e->data.at < 0) return 0;
    e->kind = number_of_kind(r, &k, guess);
    return e->kind >= 0;
}

/* Requests `bytes[starts[k] .. ends[k]]` of up to `bytes_max` bytes -> `out[k]`; the kinds of the plain ones, in `kinds` with
 * room for KINDS_MAX, and how many these are, or -1 if memory ran out. Rows that `s` (may be null) can read go to float64
 * rows of `matrix`, with room for one a request. */
int64_t inferd_read_envelopes(int32_t encoding, const uint8_t *bytes, const int64_t *starts, const int64_t *ends,
                              int64_t count, int64_t bytes_max, const uint8_t *id_bytes, int64_t id_max,
                              const schema *s, double *matrix, kind *kinds, envelope *out) {
    reading r = {bytes, id_bytes, id_max, kinds, 0, s, {0}, matrix, 0};
    int64_t *room = s ? start_names(s, &r.names) : 0, guess = 0;
    if (s && !room) return -1;
    cursor c = {bytes, bytes};
    for (int64_t k = 0; k < count; k++) {
        c.at = bytes + starts[k];
        c.end = bytes + ends[k];
        if (c.end - c.at > bytes_max || !read_envelope(&r, encoding, &c, out + k, guess)) {
            out[k].kind = -1;
            continue;
        }
        guess = out[k].kind;
        if (out[k].row >= 0) r.rows++;
    }
    free(room);
    return r.kinds;
}

/* Lists of rows `bytes[starts[k] .. ends[k]]` -> each row of them in `row`, with room for `room`; how many these are, or -1
 * if one is no such list, or the room does not suffice. */
int64_t inferd_split_rows(int32_t encoding, const uint8_t *bytes, const int64_t *starts, const int64_t *ends,
                          int64_t count, span *row, int64_t room) {
    int64_t found = 0;
    for (int64_t k = 0; k < count; k++) {
        cursor c = {bytes + starts[k], bytes + ends[k]};
        int64_t rows = skip_rows(encoding, bytes, &c, row + found, room - found);
        if (!rows || rows > room - found) return -1;
        found += rows;
    }
    return found;
}

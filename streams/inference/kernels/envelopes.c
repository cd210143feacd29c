/* Requests in the plain layout, in JSON or MessagePack -> where their id, model and row are.
 *
 * Plain is a map of `model_id`, `input_data` and perhaps `id`, in any order. The id has only allowed characters; the row
 * is a flat list or map. A request is either read exactly as the typed decoder reads it, or left to that
 * decoder; the bytes of the row are not validated here. The input is untrusted.
 */

#define MODELS_MAX 64 /* different models in a call; requests to others are not plain */

typedef struct {
    int64_t model; /* its index in the list of models; -1: the request is not plain */
    int64_t id_at, id_length; /* -1 and 0: none */
    int64_t row_at, row_length;
    int64_t row; /* its index among the rows that were read; -1: it was not read */
} envelope;

typedef struct {
    int64_t at, length;
} span;

typedef struct {
    const uint8_t *bytes;
    const uint8_t *is_id; /* (256,): whether an id may have the byte */
    int64_t id_max;
    span *model;
    int64_t models;
    const schema *schema; /* of the rows that are read with their envelopes; null: none are */
    names names;
    double *matrix;
    int64_t rows; /* so many have been read */
} reading;

/* The index of a model in the list, to which it is added if it is new; -1 if the list is full. `guess` is tried first: the
 * model of the request before. */
INLINE int64_t number_of_model(reading *r, const uint8_t *text, int64_t length, int64_t guess) {
    if (guess < r->models && r->model[guess].length == length && same(r->bytes + r->model[guess].at, text, length))
        return guess;
    for (int64_t k = 0; k < r->models; k++)
        if (r->model[k].length == length && same(r->bytes + r->model[k].at, text, length)) return k;
    if (r->models == MODELS_MAX) return -1;
    r->model[r->models] = (span){text - r->bytes, length};
    return r->models++;
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

/* ---- maps */

INLINE int read_text(int32_t encoding, cursor *c, const uint8_t **text, int64_t *length) {
    return encoding == JSON ? json_byte(c, '"') && json_text(c, text, length) : msgpack_text(c, text, length);
}

/* Reads one field; 0 if it is repeated or unknown. While fields are missing, `model` is -2, and the lengths are 0. */
INLINE int read_field(reading *r, int32_t encoding, cursor *c, envelope *e, int64_t guess) {
    const uint8_t *text;
    int64_t length;
    if (!read_text(encoding, c, &text, &length) || (encoding == JSON && !json_byte(c, ':'))) return 0;
    if (length == 10 && !memcmp(text, "input_data", 10)) {
        if (encoding == JSON) skip_space(c);
        const uint8_t *first = c->at;
        if (e->row_length) return 0;
        if (r->schema && next_row(r->schema, encoding, c, &r->names, r->matrix + r->rows * r->schema->features)) {
            e->row = r->rows;
        } else {
            c->at = first;
            if (!(encoding == JSON ? json_skip_row(c) : msgpack_skip_row(c))) return 0;
        }
        e->row_at = first - r->bytes;
        e->row_length = c->at - first;
        return 1;
    }
    if (length == 8 && !memcmp(text, "model_id", 8)) {
        if (e->model != -2 || !read_text(encoding, c, &text, &length)) return 0;
        return (e->model = number_of_model(r, text, length, guess)) >= 0;
    }
    if (length != 2 || memcmp(text, "id", 2) || e->id_length) return 0;
    if (!read_text(encoding, c, &text, &length) || !is_id(r, text, length)) return 0;
    e->id_at = text - r->bytes;
    e->id_length = length;
    return 1;
}

INLINE int read_envelope(reading *r, int32_t encoding, cursor *c, envelope *e, int64_t guess) {
    uint64_t count = 3;
    *e = (envelope){-2, -1, 0, 0, 0, -1};
    if (encoding == JSON ? !json_byte(c, '{') : !msgpack_count(c, 0x80, 0xDE, &count) || count > 3) return 0;
    for (uint64_t k = 0; k < count; k++) {
        if (encoding == JSON && k && !json_byte(c, ',')) break;
        if (!read_field(r, encoding, c, e, guess)) return 0;
    }
    if (encoding == JSON) {
        if (!json_byte(c, '}')) return 0;
        skip_space(c);
    }
    return c->at == c->end && e->model >= 0 && e->row_length;
}

/* Requests `bytes[starts[k] .. ends[k]]` of up to `bytes_max` bytes -> `out[k]`; the spans of the models that they name,
 * in `model` with room for MODELS_MAX, and how many these are, or -1 if memory ran out. The list may include a
 * model that is named only by requests that are not plain. Rows that `s` (may be null) can read go to float64 rows of
 * `matrix`, with room for all. */
int64_t inferd_read_envelopes(int32_t encoding, const uint8_t *bytes, const int64_t *starts, const int64_t *ends,
                              int64_t count, int64_t bytes_max, const uint8_t *id_bytes, int64_t id_max,
                              const schema *s, double *matrix, span *model, envelope *out) {
    reading r = {bytes, id_bytes, id_max, model, 0, s, {0}, matrix, 0};
    int64_t *room = s ? start_names(s, &r.names) : 0, guess = 0;
    if (s && !room) return -1;
    cursor c = {bytes, bytes};
    for (int64_t k = 0; k < count; k++) {
        c.at = bytes + starts[k];
        c.end = bytes + ends[k];
        if (c.end - c.at > bytes_max || !read_envelope(&r, encoding, &c, out + k, guess)) {
            out[k].model = -1;
            continue;
        }
        guess = out[k].model;
        if (out[k].row >= 0) r.rows++;
    }
    free(room);
    return r.models;
}

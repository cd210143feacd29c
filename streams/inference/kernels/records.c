/* Records of a route, in JSON or MessagePack: maps of any shape -> float64 rows of the values at the features' paths.
 *
 * The paths are a tree: its nodes are the maps on the way, its leaves the features. All other fields are skipped, but
 * must be well-formed. A record is either read exactly as the typed decoder reads it, or left to that decoder: whatever
 * is unusual or malformed, and records that have a needed name twice.
 *
 * records.py makes the schema: its first entries are the names of all nodes, node by node, each with an owner of
 * OF_NODE(node) and what it leads to as its code. Nothing is assumed about the records.
 */

#define OF_NODE(node) (-1 - (node))
#define UNKNOWN (-1)
#define MALFORMED (-2)
#define DIGITS_MAX 308        /* before the decimal point of a number below 1e308 */
#define SKIPPED_DEPTH_MAX 60 /* of values that are skipped; deeper ones are left to the typed decoder */

/* Which name came after each name in the record before, first of all after the start of each node; and in which record
 * a name came last. Numbers of entries. */
typedef struct {
    int64_t *after, *first, *seen, row_number;
} path_names;

/* ---- text that is skipped */

INLINE int continues(const uint8_t *at, int count) {
    for (int k = 1; k <= count; k++)
        if ((at[k] & 0xC0) != 0x80) return 0;
    return 1;
}

/* A character of several bytes in UTF-8: Unicode Standard, table 3-7. */
static int utf8_character(cursor *c) {
    const uint8_t *at = c->at;
    uint8_t first = at[0];
    int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || c->end - at <= more || !continues(at, more)) return 0;
    if ((first == 0xE0 && at[1] < 0xA0) || (first == 0xED && at[1] > 0x9F)) return 0;
    if ((first == 0xF0 && at[1] < 0x90) || (first == 0xF4 && at[1] > 0x8F)) return 0;
    c->at += more + 1;
    return 1;
}

INLINE uint64_t is_not_ascii(uint64_t word) { return word & EACH(0x80); }

INLINE int is_utf8(const uint8_t *text, int64_t length) {
    cursor c = {text, text + length};
    for (;;) {
        skip_until(&c, is_not_ascii);
        if (c.at >= c.end) return 1;
        if (*c.at < 0x80) c.at++;
        else if (!utf8_character(&c)) return 0;
    }
}

/* ---- JSON */

INLINE int four_hex_digits(cursor *c, uint32_t *unit) {
    if (c->end - c->at < 4) return 0;
    *unit = 0;
    for (int k = 0; k < 4; k++) {
        uint8_t byte = *c->at++, letter = (uint8_t)((byte | 0x20) - 'a');
        if ((uint8_t)(byte - '0') <= 9) *unit = *unit << 4 | (uint32_t)(byte - '0');
        else if (letter <= 5) *unit = *unit << 4 | (uint32_t)(letter + 10);
        else return 0;
    }
    return 1;
}

/* Behind a backslash. Of surrogates only pairs are valid. */
INLINE int json_escape(cursor *c) {
    uint32_t unit, second;
    if (c->at >= c->end) return 0;
    uint8_t byte = *c->at++;
    if (byte != 'u') return byte && strchr("\"\\/bfnrt", byte);
    if (!four_hex_digits(c, &unit)) return 0;
    if (unit >> 11 != 0x1B) return 1;
    return unit < 0xDC00 && json_word(c, "\\u", 2) && four_hex_digits(c, &second) && second >> 10 == 0x37;
}

INLINE uint64_t leaves_plain_text(uint64_t word) { return leaves_text(word) | is_not_ascii(word); }

/* Behind the opening quote. */
INLINE int json_skip_text(cursor *c) {
    for (;;) {
        skip_until(c, leaves_plain_text);
        if (c->at >= c->end) return 0;
        if (*c->at >= 0x80) {
            if (!utf8_character(c)) return 0;
            continue;
        }
        uint8_t byte = *c->at++;
        if (byte == '"') return 1;
        if (byte < 0x20 || (byte == '\\' && !json_escape(c))) return 0;
    }
}

/* How many digits there are, and their value if that is small. */
INLINE int64_t json_skip_digits(cursor *c, int64_t *small) {
    const uint8_t *first = c->at;
    *small = 0;
    for (; c->at < c->end && (uint8_t)(*c->at - '0') <= 9; c->at++)
        if (*small < 1000) *small = *small * 10 + (*c->at - '0');
    return c->at - first;
}

/* Skips a number that is surely within float64, which the typed decoder checks, too. */
INLINE int json_skip_number(cursor *c) {
    int64_t value, exponent = 0;
    c->at += *c->at == '-';
    const uint8_t *first = c->at;
    int64_t whole = json_skip_digits(c, &value);
    if (whole == 0 || (whole > 1 && *first == '0')) return 0;
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (!json_skip_digits(c, &value)) return 0;
    }
    if (c->at < c->end && (*c->at | 0x20) == 'e') {
        c->at++;
        int is_small = c->at < c->end && *c->at == '-';
        if (c->at < c->end && (*c->at == '+' || *c->at == '-')) c->at++;
        if (!json_skip_digits(c, &exponent)) return 0;
        if (is_small) exponent = 0;
    }
    return whole + exponent <= DIGITS_MAX;
}

INLINE int json_skip_key(cursor *c) { return json_byte(c, '"') && json_skip_text(c) && json_byte(c, ':'); }

INLINE int json_skip_scalar(cursor *c) {
    switch (*c->at) {
        case '"':
            c->at++;
            return json_skip_text(c);
        case 'n':
            return json_word(c, "null", 4);
        case 't':
            return json_word(c, "true", 4);
        case 'f':
            return json_word(c, "false", 5);
        default:
            return json_skip_number(c);
    }
}

static int json_skip(cursor *c) {
    uint64_t is_object = 0; /* of the containers around the value, the innermost one lowest */
    int depth = 0;
    for (;;) {
        skip_space(c);
        if (c->at >= c->end) return 0;
        uint8_t byte = *c->at;
        if (byte == '{' || byte == '[') {
            if (depth++ == SKIPPED_DEPTH_MAX) return 0;
            is_object = is_object << 1 | (byte == '{');
            c->at++;
            skip_space(c);
            if (c->at >= c->end) return 0;
            if (*c->at != (byte == '{' ? '}' : ']')) {
                if (byte == '{' && !json_skip_key(c)) return 0;
                continue;
            }
        } else if (!json_skip_scalar(c)) {
            return 0;
        }
        for (;;) {
            if (depth == 0) return 1;
            skip_space(c);
            if (c->at >= c->end) return 0;
            byte = *c->at++;
            if (byte == ',') {
                if (is_object & 1 && !json_skip_key(c)) return 0;
                break;
            }
            if (byte != (is_object & 1 ? '}' : ']')) return 0;
            is_object >>= 1;
            depth--;
        }
    }
}

/* The entry of a name, behind the opening quote, and the text of others skipped. */
INLINE int64_t json_member(const schema *s, cursor *c, int64_t node, int64_t *guess) {
    const entry *e = s->entry + *guess;
    if (e->length < c->end - c->at && c->at[e->length] == '"' && same(s->bytes + e->at, c->at, e->length)) {
        c->at += e->length + 1;
        return *guess;
    }
    const uint8_t *text;
    int64_t length;
    if (!json_text(c, &text, &length)) return MALFORMED; /* with escapes, it might be any name */
    if (!(e = find(s, OF_NODE(node), text, length))) return is_utf8(text, length) ? UNKNOWN : MALFORMED;
    return *guess = e - s->entry;
}

/* ---- MessagePack */

/* Skips the bytes of a string or binary whose length has `width` bytes. */
INLINE int msgpack_skip_sized(cursor *c, int64_t width) {
    uint64_t size;
    if (!big_endian(c, width, &size) || (uint64_t)(c->end - c->at) < size) return 0;
    c->at += size;
    return 1;
}

INLINE int msgpack_skip_text(cursor *c) {
    const uint8_t *text;
    int64_t length;
    return msgpack_text(c, &text, &length) && is_utf8(text, length);
}

/* Skips a value; of a container only its header, and `items` is how many values it contains. */
INLINE int msgpack_skip_head(cursor *c, uint64_t *items, int *is_map) {
    value v;
    if (c->at >= c->end) return 0;
    uint8_t byte = *c->at;
    *items = 0;
    *is_map = (byte & 0xF0) == 0x80 || byte == 0xDE;
    if (*is_map) {
        if (!msgpack_count(c, 0x80, 0xDE, items)) return 0;
        *items *= 2;
        return 1;
    }
    if ((byte & 0xF0) == 0x90 || byte == 0xDC) return msgpack_count(c, 0x90, 0xDC, items);
    if (byte == 0xC4 || byte == 0xC5 || byte == 0xC6) {
        c->at++;
        return msgpack_skip_sized(c, 1ll << (byte - 0xC4));
    }
    return msgpack_value(c, &v) && (v.kind != TEXT || is_utf8(v.text, v.length));
}

static int msgpack_skip(cursor *c) {
    uint64_t left[SKIPPED_DEPTH_MAX + 1], items;
    uint64_t maps = 0; /* of the containers around the value, the innermost one lowest: whether they are maps */
    int depth = 0, is_map;
    left[0] = 1;
    for (;;) {
        while (left[depth] == 0) {
            maps >>= 1;
            if (depth-- == 0) return 1;
        }
        int is_key = (maps & 1) && left[depth] % 2 == 0;
        left[depth]--;
        if (is_key) {
            if (!msgpack_skip_text(c)) return 0;
            continue;
        }
        if (!msgpack_skip_head(c, &items, &is_map)) return 0;
        if (items) {
            if (depth == SKIPPED_DEPTH_MAX) return 0;
            maps = maps << 1 | (uint64_t)is_map;
            left[++depth] = items;
        }
    }
}

INLINE int64_t msgpack_member(const schema *s, cursor *c, int64_t node, int64_t *guess) {
    const uint8_t *text;
    int64_t length;
    const entry *e = s->entry + *guess;
    if (!msgpack_text(c, &text, &length)) return MALFORMED;
    if (e->length == length && same(s->bytes + e->at, text, length)) return *guess;
    if (!(e = find(s, OF_NODE(node), text, length))) return is_utf8(text, length) ? UNKNOWN : MALFORMED;
    return *guess = e - s->entry;
}

/* ---- both */

/* The value of a field: one that a path leads to, or leads through, or one that is skipped. */
static int read_node(const schema *s, int32_t encoding, cursor *c, path_names *m, int64_t node, double *row);

INLINE int read_member(const schema *s, int32_t encoding, cursor *c, path_names *m, int64_t name, double *row) {
    value v = {0};
    if (name == UNKNOWN) return encoding == JSON ? json_skip(c) : msgpack_skip(c);
    if (m->seen[name] == m->row_number) return 0;
    m->seen[name] = m->row_number;
    double target = s->entry[name].code;
    if (target < 0) return read_node(s, encoding, c, m, -(int64_t)target, row);
    if (target >= (double)s->features) return 0; /* a name that no record may have */
    return (encoding == JSON ? json_value(s, c, &v) : msgpack_value(c, &v)) && place(s, (int64_t)target, &v, row);
}

INLINE int json_node(const schema *s, cursor *c, path_names *m, int64_t node, double *row) {
    int64_t *guess = m->first + node;
    skip_space(c);
    if (node && c->at < c->end && *c->at == 'n') return json_word(c, "null", 4);
    if (!json_byte(c, '{')) return 0;
    if (json_byte(c, '}')) return 1;
    do {
        if (!json_byte(c, '"')) return 0;
        int64_t name = json_member(s, c, node, guess);
        if (name == MALFORMED || !json_byte(c, ':') || !read_member(s, JSON, c, m, name, row)) return 0;
        if (name != UNKNOWN) guess = m->after + name;
    } while (json_byte(c, ','));
    return json_byte(c, '}');
}

INLINE int msgpack_node(const schema *s, cursor *c, path_names *m, int64_t node, double *row) {
    int64_t *guess = m->first + node;
    uint64_t count;
    if (node && c->at < c->end && *c->at == 0xC0) {
        c->at++;
        return 1;
    }
    if (!msgpack_count(c, 0x80, 0xDE, &count)) return 0;
    for (uint64_t k = 0; k < count; k++) {
        int64_t name = msgpack_member(s, c, node, guess);
        if (name == MALFORMED || !read_member(s, MSGPACK, c, m, name, row)) return 0;
        if (name != UNKNOWN) guess = m->after + name;
    }
    return 1;
}

static int read_node(const schema *s, int32_t encoding, cursor *c, path_names *m, int64_t node, double *row) {
    return encoding == JSON ? json_node(s, c, m, node, row) : msgpack_node(s, c, m, node, row);
}

/* Records `bytes[starts[k] .. ends[k]]` -> float64 rows of `matrix`, one after the other, of those that could be
 * read; how many, or -1 if memory ran out. `fits[k]` says which: it is 1 or 0. The first `names` entries are names of
 * `nodes` nodes. */
int64_t inferd_read_records(const schema *s, int64_t names, int64_t nodes, int32_t encoding, const uint8_t *bytes,
                            const int64_t *starts, const int64_t *ends, int64_t count, double *matrix, uint8_t *fits) {
    int64_t *room = malloc((size_t)(2 * names + nodes) * sizeof(int64_t)), read = 0;
    if (!room) return -1;
    path_names m = {room, room + names, room + names + nodes, 0};
    for (int64_t name = names - 1; name >= 0; name--) {
        m.after[name] = name;
        m.first[OF_NODE(s->entry[name].owner)] = name;
        m.seen[name] = -1;
    }
    cursor c = {bytes, bytes};
    for (; m.row_number < count; m.row_number++) {
        double *row = matrix + read * s->features;
        c.at = bytes + starts[m.row_number];
        c.end = bytes + ends[m.row_number];
        for (int64_t feature = 0; feature < s->features; feature++) row[feature] = float_of_bits(MISSING_BITS);
        int fit = read_node(s, encoding, &c, &m, 0, row);
        if (encoding == JSON) skip_space(&c);
        fits[m.row_number] = fit = fit && c.at == c.end;
        read += fit;
    }
    free(room);
    return read;
}

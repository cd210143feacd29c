/* CRC-32C by the processor's own instruction. */

#ifdef __x86_64__
__attribute__((target("sse4.2")))
static uint32_t crc_by_instruction(const uint8_t *at, const uint8_t *end) {
    uint64_t crc = 0xFFFFFFFF;
    for (; end - at >= 8; at += 8) crc = __builtin_ia32_crc32di(crc, load64(at));
    for (; at < end; at++) crc = __builtin_ia32_crc32qi((uint32_t)crc, *at);
    return ~(uint32_t)crc;
}

static int has_instruction(void) {
    uint32_t a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2);
}
#else
static uint32_t crc_by_instruction(const uint8_t *at, const uint8_t *end) { return (uint32_t)(end - at); } /* never called */

static int has_instruction(void) { return 0; }
#endif

/* Of the bytes from `at` to `end`; -1 on a processor without the instruction. */
int64_t inferd_crc32c(const uint8_t *bytes, int64_t at, int64_t end) {
    return has_instruction() ? (int64_t)crc_by_instruction(bytes + at, bytes + end) : -1;
}

/* Mutations that know the plan's frame: sizes stay right most of the time, so that what is behind them is met. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 40
#define SIZE_AT 8
#define RECORD_SIZE 24
#define A_SIZE_AT 16
#define B_SIZE_AT 20
#define RECORDS_MAX 1024

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static uint32_t get(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

/* Where records begin, and where the last one ends; only as far as they are whole. */
static size_t records(const uint8_t *data, size_t size, size_t *starts) {
    size_t count = 0, at = HEADER_SIZE;
    while (count < RECORDS_MAX && size - at >= RECORD_SIZE) {
        uint64_t length = (uint64_t)RECORD_SIZE + get(data + at + A_SIZE_AT) + get(data + at + B_SIZE_AT);
        if (length > size - at)
            break;
        starts[count++] = at;
        at += length;
    }
    starts[count] = at;
    return count;
}

static size_t without(uint8_t *data, size_t size, size_t from, size_t to) {
    memmove(data + from, data + to, size - to);
    return size - (to - from);
}

static size_t with_copy(uint8_t *data, size_t size, size_t max_size, size_t from, size_t to, size_t at) {
    size_t length = to - from;
    if (size + length > max_size)
        return size;
    uint8_t *copy = malloc(length);
    memcpy(copy, data + from, length);
    memmove(data + at + length, data + at, size - at);
    memcpy(data + at, copy, length);
    free(copy);
    return size + length;
}

/* Change one of the two texts of a record, and its size with it. */
static size_t with_other_text(uint8_t *data, size_t size, size_t max_size, size_t start, int second) {
    uint8_t *size_at = data + start + (second ? B_SIZE_AT : A_SIZE_AT);
    size_t old = get(size_at), text = start + RECORD_SIZE + (second ? get(data + start + A_SIZE_AT) : 0);
    size_t room = old + 64;
    if (size + 64 > max_size)
        return size;
    uint8_t *buffer = malloc(room);
    memcpy(buffer, data + text, old);
    size_t now = LLVMFuzzerMutate(buffer, old, room);
    if (now && rand() % 4)
        buffer[now - 1] = 0;
    memmove(data + text + now, data + text + old, size - text - old);
    memcpy(data + text, buffer, now);
    free(buffer);
    put(size_at, (uint32_t)now);
    return size - old + now;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static size_t starts[RECORDS_MAX + 1];
    srand(seed);
    if (size < HEADER_SIZE || rand() % 16 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t count = records(data, size, starts), one = count ? (size_t)rand() % count : 0;
    switch (count ? rand() % 8 : 0) {
    case 0:
        size = LLVMFuzzerMutate(data, size, max_size);
        break;
    case 1:
        size = without(data, size, starts[one], starts[one + 1]);
        break;
    case 2:
    case 3:
        size = with_copy(data, size, max_size, starts[one], starts[one + 1], starts[(size_t)rand() % (count + 1)]);
        break;
    case 4: /* the record's own numbers: kind, flags, number */
        LLVMFuzzerMutate(data + starts[one], A_SIZE_AT, A_SIZE_AT);
        break;
    case 5:
        put(data + starts[one], 1 + (uint32_t)rand() % 15);
        break;
    default:
        size = with_other_text(data, size, max_size, starts[one], rand() % 3 == 0);
    }
    if (size >= HEADER_SIZE && rand() % 16)
        put(data + SIZE_AT, (uint32_t)size);
    return size;
}

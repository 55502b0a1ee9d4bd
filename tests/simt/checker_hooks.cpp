/* The functions that gcc calls in code compiled with -fsanitize=thread (one before every access to
 * memory that another thread could see) and with -fsanitize=alignment,bounds. They are no
 * library's: kernels are compiled so and linked without libtsan and libubsan. Calls of memcpy and
 * memset that the compiler does not expand are not seen. */
#include "simt/checker.h"

#if defined(CT_SIMT_CHECKED)

#include <cstring>

using simt::checker::Access;

#define SIMT_CHECK(address, bytes, kind)                                                           \
    simt::checker::check(address, bytes, Access::kind, __builtin_return_address(0))

extern "C" {

/* Called by every instrumented file's constructor. */
void __tsan_init()
{
    simt::checked = true;
}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}

#define SIMT_HOOKS(bytes)                                                                          \
    void __tsan_read##bytes(void *address)                                                         \
    {                                                                                              \
        SIMT_CHECK(address, bytes, read);                                                          \
    }                                                                                              \
    void __tsan_write##bytes(void *address)                                                        \
    {                                                                                              \
        SIMT_CHECK(address, bytes, write);                                                         \
    }                                                                                              \
    void __tsan_volatile_read##bytes(void *address)                                                \
    {                                                                                              \
        SIMT_CHECK(address, bytes, read);                                                          \
    }                                                                                              \
    void __tsan_volatile_write##bytes(void *address)                                               \
    {                                                                                              \
        SIMT_CHECK(address, bytes, write);                                                         \
    }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

#define SIMT_UNALIGNED_HOOKS(bytes)                                                                \
    void __tsan_unaligned_read##bytes(void *address)                                               \
    {                                                                                              \
        SIMT_CHECK(address, bytes, read);                                                          \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *address)                                              \
    {                                                                                              \
        SIMT_CHECK(address, bytes, write);                                                         \
    }
SIMT_UNALIGNED_HOOKS(2)
SIMT_UNALIGNED_HOOKS(4)
SIMT_UNALIGNED_HOOKS(8)
SIMT_UNALIGNED_HOOKS(16)

void __tsan_read_range(void *address, size_t bytes)
{
    SIMT_CHECK(address, bytes, read);
}
void __tsan_write_range(void *address, size_t bytes)
{
    SIMT_CHECK(address, bytes, write);
}
void __tsan_vptr_read(void **address)
{
    SIMT_CHECK(address, sizeof *address, read);
}
void __tsan_vptr_update(void **address, void *)
{
    SIMT_CHECK(address, sizeof *address, write);
}

/* Guards of static variables and the like, in host code of the same files; kernels use CUDA's
 * functions. One thread drives the device, so plain accesses do. */
#define SIMT_ATOMIC_HOOKS(bits, T)                                                                 \
    T __tsan_atomic##bits##_load(const volatile T *address, int)                                   \
    {                                                                                              \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                         \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile T *address, T value, int)                            \
    {                                                                                              \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                        \
    }                                                                                              \
    T __tsan_atomic##bits##_exchange(volatile T *address, T value, int)                            \
    {                                                                                              \
        return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                              \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_add(volatile T *address, T value, int)                           \
    {                                                                                              \
        return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                               \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_sub(volatile T *address, T value, int)                           \
    {                                                                                              \
        return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                               \
    }                                                                                              \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T *address, T *expected, T value,   \
                                                      int, int)                                    \
    {                                                                                              \
        return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST,      \
                                           __ATOMIC_SEQ_CST);                                      \
    }
SIMT_ATOMIC_HOOKS(8, uint8_t)
SIMT_ATOMIC_HOOKS(16, uint16_t)
SIMT_ATOMIC_HOOKS(32, uint32_t)
SIMT_ATOMIC_HOOKS(64, uint64_t)

/* The layouts are those of libubsan's interface, version 1. */
struct ubsan_location {
    const char *file;
    uint32_t line, column;
};
struct ubsan_type {
    uint16_t kind, info;
    char name[1];
};
struct ubsan_type_mismatch {
    ubsan_location where;
    const ubsan_type *type;
    unsigned char log_alignment, check_kind;
};
struct ubsan_out_of_bounds {
    ubsan_location where;
    const ubsan_type *array, *index;
};

void __ubsan_handle_type_mismatch_v1_abort(const ubsan_type_mismatch *data, void *address)
{
    simt::fault_in(simt::checker::running.thread,
                   "misaligned access at %s:%u: type %s at %p wants a multiple of %u bytes",
                   data->where.file, data->where.line, data->type->name, address,
                   1u << data->log_alignment);
}
void __ubsan_handle_out_of_bounds_abort(const ubsan_out_of_bounds *data, void *index)
{
    simt::fault_in(simt::checker::running.thread, "index %lld out of bounds of %s at %s:%u",
                   (long long)(intptr_t)index, data->array->name, data->where.file,
                   data->where.line);
}

} // extern "C"

#endif

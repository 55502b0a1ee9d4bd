#include "model/safetensors_format.h"

const ct_file_dtype_info ct_file_dtype_table[CT_FILE_DTYPES] = {
    [CT_FILE_F32] = {"F32", 4}, [CT_FILE_F16] = {"F16", 2}, [CT_FILE_BF16] = {"BF16", 2},
    [CT_FILE_F64] = {"F64", 8}, [CT_FILE_I64] = {"I64", 8}, [CT_FILE_I32] = {"I32", 4},
    [CT_FILE_U8] = {"U8", 1},
};

bool ct_file_tensor_bytes(ct_file_dtype dtype, int rank, const int64_t *dim, uint64_t *bytes)
{
    *bytes = ct_file_dtype_table[dtype].bytes;
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(*bytes, (uint64_t)dim[i], bytes)) return false;
    return *bytes <= INT64_MAX;
}

bool ct_utf8_valid(const char *text, size_t size)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < size;) {
        uint8_t lead = s[i++];
        if (lead < 0x80) continue;
        if (lead < 0xC2 || lead > 0xF4) return false;
        size_t tail = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (size - i < tail) return false;
        /* The first byte behind these leads has a narrower range (RFC 3629, section 4). */
        uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (s[i] < low || s[i] > high) return false;
        for (size_t k = 1; k < tail; k++)
            if ((s[i + k] & 0xC0) != 0x80) return false;
        i += tail;
    }
    return true;
}

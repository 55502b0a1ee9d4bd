#include "kernel_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

ct_status ct_kernel_table_load(const char *path, ct_kernel_table *table)
{
    FILE *file = fopen(path, "r");
    if (!file) return ct_fail_errno(CT_ERR_IO, "%s: cannot be opened", path);
    char line[512];
    ct_status status = CT_OK;
    for (int number = 1; status == CT_OK && fgets(line, sizeof line, file); number++) {
        ct_kernel_use use = {0};
        char architecture[16];
        if (sscanf(line, "%159[^\t]\t%15[^\t]\t%d\t%d", use.name, architecture, &use.registers,
                   &use.shared_bytes) != 4) {
            status = ct_fail(CT_ERR_FORMAT,
                             "%s:%d: expected kernel, architecture, registers and shared bytes "
                             "between tabs",
                             path, number);
        } else if (strcmp(architecture, "sm_90") == 0) {
            status = ct_grow(&table->items, &table->capacity, table->count + 1,
                             sizeof *table->items, "the kernel table");
            if (status == CT_OK) table->items[table->count++] = use;
        }
    }
    fclose(file);
    return status;
}

void ct_kernel_table_free(ct_kernel_table *table)
{
    free(table->items);
    *table = (ct_kernel_table){0};
}

const ct_kernel_use *ct_kernel_find(const ct_kernel_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->items[i].name, name) == 0) return &table->items[i];
    return NULL;
}

double ct_kernel_occupancy(const ct_kernel_use *use, unsigned threads, size_t dynamic_shared_bytes)
{
    enum { WARPS = 64, BLOCKS = 32, REGISTERS = 65536, REGISTER_UNIT = 256, SHARED = 227 * 1024 };
    const unsigned warps = (threads + 31) / 32;
    const unsigned warp_registers =
        ((unsigned)use->registers * 32 + REGISTER_UNIT - 1) / REGISTER_UNIT * REGISTER_UNIT;
    const size_t shared = (size_t)use->shared_bytes + dynamic_shared_bytes + 1024;
    unsigned blocks = WARPS / warps;
    if (blocks > BLOCKS) blocks = BLOCKS;
    if (warp_registers && blocks > REGISTERS / (warp_registers * warps))
        blocks = REGISTERS / (warp_registers * warps);
    if (blocks > SHARED / shared) blocks = (unsigned)(SHARED / shared);
    return (double)(blocks * warps) / WARPS;
}

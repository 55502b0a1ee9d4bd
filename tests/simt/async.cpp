/* cp.async as late as CUDA allows: a copy leaves poison in its destination, and reads its source
 * only when its thread waits for it. */
#include <cstring>

#include "simt/checker.h"
#include "simt/engine.h"

namespace simt
{

using checker::Access;

void cp_async_16(void *shared, const void *global, int bytes, Location where)
{
    require_shared_row("cp.async", shared, where);
    if (bytes < 0 || bytes > 16)
        fault_in(current, "cp.async at %s of %d bytes", text_of(where).c_str(), bytes);
    if (bytes && (uintptr_t)global % 16)
        fault_in(current, "misaligned source %p of cp.async at %s: 16 bytes wanted", global,
                 text_of(where).c_str());
    if (bytes && !is_device_memory(global, (size_t)bytes))
        fault_in(current, "cp.async at %s reads outside device memory: %s", text_of(where).c_str(),
                 describe_address(global));
    if (checked) checker::check(shared, 16, Access::async_begin, __builtin_return_address(0));
    poison(shared, 16);
    current->copies.push_back(
        {static_cast<unsigned char *>(shared), global, bytes, current->copy_groups});
}

void cp_async_commit()
{
    current->copy_groups++;
}

void cp_async_wait_groups(int pending, Location where)
{
    Thread *self = current;
    if (pending < 0)
        fault_in(self, "cp.async.wait_group %d at %s", pending, text_of(where).c_str());
    size_t kept = 0;
    for (const PendingCopy &copy : self->copies) {
        if (copy.group + (uint32_t)pending >= self->copy_groups) {
            self->copies[kept++] = copy;
            continue;
        }
        if (checked) {
            const void *code = __builtin_return_address(0);
            if (copy.bytes) checker::check(copy.from, (size_t)copy.bytes, Access::read, code);
            checker::check(copy.to, 16, Access::async_end, code);
        }
        if (copy.bytes) memcpy(copy.to, copy.from, (size_t)copy.bytes);
        memset(copy.to + copy.bytes, 0, 16 - (size_t)copy.bytes);
    }
    self->copies.resize(kept);
}

} // namespace simt

#include "cpu/cpu.h"
#include "model/support.h"

ct_status model_device_create(ct_device **out)
{
    return ct_cpu_device_create(0, out);
}

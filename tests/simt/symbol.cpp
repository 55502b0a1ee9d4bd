/* Names of functions from the symbol tables of the program's own files: unlike dladdr it knows
 * static functions and functions of anonymous namespaces, which most kernels are. Reports only. */
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "simt/engine.h"

namespace simt
{

namespace
{

std::vector<char> read_whole(const char *path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/* "void (anonymous namespace)::f<float>(int, int)" to "f<float>": no result, parameters, scopes. */
std::string shorten(std::string name)
{
    for (size_t at; (at = name.find("(anonymous namespace)::")) != std::string::npos;)
        name.erase(at, 23);
    int depth = 0;
    for (size_t i = 0; i < name.size(); i++) {
        if (name[i] == '<') depth++;
        if (name[i] == '>' && depth > 0) depth--;
        if (depth == 0 && name[i] == ' ') {
            name.erase(0, i + 1);
            i = (size_t)-1;
        } else if (depth == 0 && name[i] == '(') {
            name.erase(i);
        }
    }
    return name;
}

std::string demangle(const char *mangled)
{
    int status;
    char *name = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    std::string result = shorten(name ? name : mangled);
    free(name);
    return result;
}

/* The function that holds `address`, given relative to the file's load address. */
std::string find_symbol(const std::vector<char> &file, uint64_t address)
{
    if (file.size() < sizeof(Elf64_Ehdr)) return "";
    const auto *header = reinterpret_cast<const Elf64_Ehdr *>(file.data());
    if (header->e_shoff + header->e_shnum * sizeof(Elf64_Shdr) > file.size()) return "";
    const auto *sections = reinterpret_cast<const Elf64_Shdr *>(file.data() + header->e_shoff);
    for (int s = 0; s < header->e_shnum; s++) {
        const Elf64_Shdr &table = sections[s];
        if (table.sh_type != SHT_SYMTAB || table.sh_offset + table.sh_size > file.size()) continue;
        const char *strings = file.data() + sections[table.sh_link].sh_offset;
        const auto *symbols = reinterpret_cast<const Elf64_Sym *>(file.data() + table.sh_offset);
        for (size_t i = 0; i < table.sh_size / sizeof *symbols; i++) {
            const Elf64_Sym &symbol = symbols[i];
            if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && address >= symbol.st_value &&
                address - symbol.st_value < symbol.st_size)
                return demangle(strings + symbol.st_name);
        }
    }
    return "";
}

} // namespace

namespace
{

std::string look_up(const void *address)
{
    char hex[32];
    snprintf(hex, sizeof hex, "%p", address);
    Dl_info info;
    if (!dladdr(const_cast<void *>(address), &info)) return hex;
    std::vector<char> file = read_whole(info.dli_fname);
    if (file.empty()) file = read_whole("/proc/self/exe");
    bool fixed = file.size() >= sizeof(Elf64_Ehdr) &&
                 reinterpret_cast<const Elf64_Ehdr *>(file.data())->e_type == ET_EXEC;
    uint64_t base = fixed ? 0 : reinterpret_cast<uint64_t>(info.dli_fbase);
    std::string name = find_symbol(file, reinterpret_cast<uint64_t>(address) - base);
    if (name.empty() && info.dli_sname) name = demangle(info.dli_sname);
    return name.empty() ? hex : name;
}

} // namespace

std::string function_name(const void *address)
{
    static std::unordered_map<const void *, std::string> known;
    std::string &name = known[address];
    if (name.empty()) name = look_up(address);
    return name;
}

} // namespace simt

// demangle.cpp: the C++ runtime knows how its names were made.
#include <cxxabi.h>

extern "C" char *demangle(const char *name);
extern "C" char *demangle(const char *name)
{
    int status = 0;
    return name[0] == '_' && name[1] == 'Z' ? abi::__cxa_demangle(name, nullptr, nullptr, &status) : nullptr;
}

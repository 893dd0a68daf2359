#ifndef MS_VCRUNTIME
#define MS_VCRUNTIME
#include <stddef.h>
#include <stdarg.h>
#ifdef __cplusplus
#define MS_BEGIN extern "C" {
#define MS_END }
#else
#define MS_BEGIN
#define MS_END
#endif
#endif

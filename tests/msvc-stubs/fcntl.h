#ifndef MS_FCNTL
#define MS_FCNTL
#include <vcruntime.h>
MS_BEGIN
#define _O_BINARY 0x8000
#define _O_TEXT 0x4000
MS_END
#endif

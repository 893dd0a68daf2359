#ifndef MS_DIRECT
#define MS_DIRECT
#include <vcruntime.h>
MS_BEGIN
int _mkdir(const char *path);
int _wmkdir(const wchar_t *path);
MS_END
#endif

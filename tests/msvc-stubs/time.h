#ifndef MS_TIME
#define MS_TIME
#include <vcruntime.h>
MS_BEGIN
typedef long long time_t;
typedef long clock_t;
#define CLOCKS_PER_SEC ((clock_t)1000)
struct tm { int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday, tm_yday, tm_isdst; };
clock_t clock(void);
time_t time(time_t *t);
struct tm *localtime(const time_t *t);
size_t strftime(char *out, size_t n, const char *format, const struct tm *t);
MS_END
#endif

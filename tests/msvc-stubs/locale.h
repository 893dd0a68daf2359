#ifndef MS_LOCALE
#define MS_LOCALE
#include <vcruntime.h>
MS_BEGIN
#define LC_ALL 0
#define LC_NUMERIC 4
struct lconv { char *decimal_point, *thousands_sep; };
char *setlocale(int category, const char *name);
struct lconv *localeconv(void);
MS_END
#endif

#ifndef MS_MATH
#define MS_MATH
#include <vcruntime.h>
MS_BEGIN
#define HUGE_VAL 1e308
double acos(double), asin(double), atan(double), atan2(double, double), ceil(double), cos(double), cosh(double), erf(double), erfc(double);
double exp(double), expm1(double), exp2(double), fabs(double), floor(double), fmax(double, double), fmin(double, double), fmod(double, double);
double frexp(double, int *), hypot(double, double), ldexp(double, int), lgamma(double), tgamma(double), log(double), log10(double);
double log1p(double), log2(double), pow(double, double), round(double), rint(double), sin(double), sinh(double), sqrt(double), tan(double);
double tanh(double), trunc(double), cbrt(double), copysign(double, double), modf(double, double *);
long lround(double);
long long llround(double);
float sqrtf(float), fabsf(float), expf(float), logf(float), sinf(float), cosf(float), floorf(float), tanhf(float), powf(float, float);
MS_END
#endif

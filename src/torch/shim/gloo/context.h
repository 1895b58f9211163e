// See names.h.
#include <gloo/names.h>

extern "C" { int docre_shim_version() { return 1; } }

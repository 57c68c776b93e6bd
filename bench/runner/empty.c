/* An empty shared object: what preloading anything at all costs a program's start. */
extern int bench_empty;
int bench_empty;

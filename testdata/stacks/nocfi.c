/* Compiled without unwind tables: only the frame pointer or the stack itself leads from here to the caller. */
int callee(int x);
int without_cfi(int x);

int without_cfi(int x) {
    volatile char buffer[64];
    buffer[x & 63] = 1;
    int result = callee(x + buffer[0] * 0);
    return result + 1;
}

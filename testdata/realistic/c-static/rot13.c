#include <stdio.h>

static int turn(int c) {
    int a = c & ~32;
    if (a < 'A' || a > 'Z') return c;
    return (c & 32) | ('A' + (a - 'A' + 13) % 26);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        for (char *p = argv[i]; *p; p++) putchar(turn(*p));
        putchar(i + 1 < argc ? ' ' : '\n');
    }
    return 0;
}

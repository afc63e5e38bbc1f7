#include <stdio.h>
#include <stdlib.h>

int twice(int);

int main(int argc, char **argv) {
    printf("%d\n", twice(argc > 1 ? atoi(argv[1]) : 0));
    return 0;
}

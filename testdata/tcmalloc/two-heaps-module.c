/* The plug-in of two-heaps.c. */
#include <stdlib.h>
#include <string.h>

void overrun(char **culprit, char **victim);

void overrun(char **culprit, char **victim)
{
    char *blocks[4];
    for (int i = 0; i < 4; i++)
        blocks[i] = (char *)memset(malloc(40), 'x', 40);
    char *volatile end = blocks[1] + 35;
    memcpy(end, "Freiherr von Hohenstein zu B.", 29);
    *culprit = blocks[1];
    *victim = blocks[2];
}

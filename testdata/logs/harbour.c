/* Ten memory errors and more, each in a function of its own: `harbour BUG...` commits those that it is asked for.
 * The name of the function to blame is in the table of crates/reports/tests/logs.rs. */
#include <mcheck.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile char *pier;
static volatile int lamps;
static volatile unsigned crates_by_dock[4];
static long ledger;
static volatile int zero;

static char *hire_ship(size_t n) { char *s = malloc(n); lamps++; return s; }
static void scrap_ship(char *ship) { pier = ship; free(ship); lamps++; }

static void board_ship(volatile char *ship) { if (ship[3] == 'x') lamps++; lamps++; }
static void board_scrapped(void) { char *s = hire_ship(48); s[3] = 1; scrap_ship(s); board_ship(s); lamps++; }

static void load_hold(volatile char *hold, int n) { for (int i = 0; i <= n; i++) hold[i] = 'c'; lamps++; }
static void overload(void) { char *s = hire_ship(24); load_hold(s, 24); lamps++; free(s); }

static void check_keel(volatile char *ship) { if (ship[-1] == 'k') lamps++; lamps++; }
static void below_keel(void) { char *s = hire_ship(40); check_keel(s); lamps++; free(s); }

static void scuttle(char *ship) { pier = ship + 1; free(ship); lamps += 2; }
static void scuttle_twice(void) { char *s = hire_ship(64); scuttle(s); scuttle(s); lamps++; }

static void sell_berth(char *berth) { pier = berth; free(berth + 16); lamps++; }
static void sell_half(void) { char *s = hire_ship(72); sell_berth(s); lamps++; }

static void lose_cargo(void) { pier = hire_ship(100); pier = 0; lamps++; }
static void storm(void) { for (int i = 0; i < 4; i++) lose_cargo(); lamps++; }

struct barge { struct barge *next; char load[40]; };
static struct barge *tie_barge(struct barge *to) { struct barge *b = malloc(sizeof *b); b->next = to; lamps++; return b; }
static void drift(void) { struct barge *volatile b = 0; for (int i = 0; i < 3; i++) b = tie_barge(b); b = 0; lamps++; }

static void read_gauge(volatile int *gauge) { if (gauge[2] > 10) lamps++; lamps++; }
static void unset_gauge(void) { int *g = malloc(32); pier = (char *)g; read_gauge(g); lamps++; free(g); }

static void *clerk(void *p) { for (int i = 0; i < 20; i++) ledger += (long)p; return 0; }
static void two_clerks(void) {
    pthread_t a, b;
    pthread_create(&a, 0, clerk, (void *)1);
    pthread_create(&b, 0, clerk, (void *)2);
    pthread_join(a, 0);
    pthread_join(b, 0);
    lamps++;
}

static int count_tides(int n) { n = n * 3; lamps++; return n; }
static void all_tides(void) { if (count_tides(1000000000 + zero) == 4) lamps++; lamps++; }

static int bend_rope(int n) { int r = 1 << n; lamps++; return r; }
static void all_ropes(void) { if (bend_rope(40 + zero) == 4) lamps++; lamps++; }

static void call_dock(int dock) { crates_by_dock[dock] = 7; lamps++; }
static void dock_five(void) { call_dock(5 + zero); lamps++; }

static void fill_deck(volatile char *deck, int n) { for (int i = 0; i <= n; i++) deck[i] = 'd'; lamps++; }
static void small_deck(void) { char deck[16]; fill_deck(deck, 16 + zero); lamps += deck[2]; }

static void sail_off(volatile int *chart) { *chart = 1; lamps++; }
static void no_chart(void) { sail_off((volatile int *)(long)zero); lamps++; }

int main(int argc, char **argv) {
    if (getenv("MALLOC_TRACE")) mtrace();
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "uaf")) board_scrapped();
        if (!strcmp(argv[i], "overrun")) overload();
        if (!strcmp(argv[i], "underrun")) below_keel();
        if (!strcmp(argv[i], "double")) scuttle_twice();
        if (!strcmp(argv[i], "badfree")) sell_half();
        if (!strcmp(argv[i], "leak")) storm();
        if (!strcmp(argv[i], "list")) drift();
        if (!strcmp(argv[i], "uninit")) unset_gauge();
        if (!strcmp(argv[i], "race")) two_clerks();
        if (!strcmp(argv[i], "overflow")) all_tides();
        if (!strcmp(argv[i], "shift")) all_ropes();
        if (!strcmp(argv[i], "global")) dock_five();
        if (!strcmp(argv[i], "stack")) small_deck();
        if (!strcmp(argv[i], "null")) no_chart();
    }
    return 0;
}

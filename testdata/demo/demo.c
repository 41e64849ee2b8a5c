/* A little chat server, with the bug that heapcheck's demo finds: a session is freed by two code paths. When a client
 * times out, `drop_session` frees its session; `close_connection`, which runs when the socket reports the hang-up, frees
 * it again. Nothing happens then. Later two clients log in and are given one and the same block: each overwrites the
 * other's session, and the server dies far from the bug, with a harmless-looking function on top of the stack.
 *
 * A session has 48 bytes. Its first word is written only while it waits in a queue, so the allocator's own link, which
 * lies there in a free block, survives until the crash. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct account {
    char name[16];
    long credit;
};

struct session {
    struct session *next_in_queue; /* set only while the session waits */
    struct account *account;
    char topic[24];
    uint64_t messages;
};

struct connection {
    int socket;
    struct session *session;
};

static struct account accounts[] = {{"alice", 12}, {"bob", 30}, {"carol", 7}};

/* The compiler must not see that a session is freed twice. */
static void (*volatile release)(void *) = free;
static void *(*volatile obtain)(size_t) = malloc;

__attribute__((noinline)) static struct session *log_in(struct account *account, const char *topic)
{
    struct session *session = obtain(sizeof *session);
    session->account = account;
    session->messages = 0;
    strncpy(session->topic, topic, sizeof session->topic);
    return session;
}

__attribute__((noinline)) static void drop_session(struct connection *connection)
{
    release(connection->session); /* and connection->session stays as it is: this is the bug */
}

__attribute__((noinline)) static void close_connection(struct connection *connection)
{
    if (connection->session)
        release(connection->session);
    connection->session = NULL;
    connection->socket = -1;
}

__attribute__((noinline)) static void join_as_guest(struct connection *connection)
{
    connection->session = log_in(NULL, "guests");
}

__attribute__((noinline)) static void deliver(struct connection *connection)
{
    connection->session->messages++;
    connection->session->account->credit--; /* the crash: a guest's session is in the place of bob's */
}

int main(void)
{
    struct connection connections[] = {{3, NULL}, {4, NULL}, {5, NULL}};

    connections[0].session = log_in(&accounts[0], "weather");
    deliver(&connections[0]);
    drop_session(&connections[0]);     /* alice timed out ... */
    close_connection(&connections[0]); /* ... and hung up */

    connections[1].session = log_in(&accounts[1], "gardening");
    join_as_guest(&connections[2]);
    deliver(&connections[1]);

    puts("not reached");
    return 0;
}

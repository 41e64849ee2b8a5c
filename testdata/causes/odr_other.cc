// The other unit of odr.cc.
struct Session {
    long id;
    void *peer;
    long state[3];
    long more;
};
struct Other {
    long id;
    void *peer;
    long state[3];
};
Session *volatile last;
Other *volatile other;

void finish(void *session)
{
    last = (Session *)session;
    last->more = 0x5e5e5e5e5e5e;
}

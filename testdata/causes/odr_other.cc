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
struct Packet {
    long id;
    void *peer;
    long state[4];
    long more;
};
Session *volatile last;
Packet *volatile last_packet;
Other *volatile other;

void finish(void *session)
{
    last = (Session *)session;
    last->more = 0x5e5e5e5e5e5e;
}
void finish_packet(void *packet)
{
    last_packet = (Packet *)packet;
    last_packet->more = 0x5e5e5e5e5e5e;
}

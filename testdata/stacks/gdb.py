# What gdb says of every thread's stack, for tests/backtraces.rs:
#   T <thread id>
#   F <pc> TAB <frame type> TAB <function> TAB <file> TAB <line>
# and, where it stops early, E <reason>. Deep stacks are cut after 2,000 frames.
import gdb

gdb.execute("set pagination off")
gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
TYPES = {gdb.NORMAL_FRAME: "normal", gdb.INLINE_FRAME: "inline", gdb.TAILCALL_FRAME: "tailcall", gdb.SIGTRAMP_FRAME: "signal"}
for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num):
    thread.switch()
    print("T %d" % thread.ptid[1])
    frame = gdb.newest_frame()
    count = 0
    while frame is not None and count < 2000:
        place = frame.find_sal()
        function = frame.function()
        name = (function.name if function else None) or frame.name() or "?"
        file = place.symtab.fullname() if place.symtab else "?"
        kind = TYPES.get(frame.type(), "other")
        print("F %#x\t%s\t%s\t%s\t%d" % (frame.pc(), kind, name, file, place.line if place.symtab else 0))
        count += 1
        try:
            older = frame.older()
        except gdb.error as error:
            print("E %s" % error)
            break
        if older is None and frame.unwind_stop_reason() not in (gdb.FRAME_UNWIND_NO_REASON, gdb.FRAME_UNWIND_OUTERMOST):
            print("E %s" % gdb.frame_stop_reason_string(frame.unwind_stop_reason()))
        frame = older

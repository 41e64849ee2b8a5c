//! The keys.

/// Keys, and what they do.
pub const KEYS: &[(&str, &str)] = &[
    ("Tab, Shift-Tab", "next pane, pane before"),
    ("j k, arrows", "down, up; PgDn PgUp, Home End"),
    (
        "h l, arrows",
        "address before or next in the row; close or open a branch",
    ),
    ("< >", "move long lines"),
    ("Enter", "go to the address; show the frame, the finding"),
    ("1 2 3", "crash, finding, address"),
    ("4 5 6", "holders, leaks, usage"),
    ("g, :", "type an address to go to"),
    ("[ ], Alt-arrows", "back, forward; Backspace: back"),
    ("/, n, N", "search in the pane; next, previous"),
    ("Space", "open or close a branch of the tree of holders"),
    ("s, r", "sort a table by the next column; reverse"),
    ("f", "show only rows with a text"),
    ("t", "usage: next table"),
    ("z", "the pane on the whole screen, and back"),
    (
        "mouse",
        "click chooses, and goes where it chose; wheel scrolls",
    ),
    ("?", "these keys"),
    ("q, Ctrl-C", "quit"),
];

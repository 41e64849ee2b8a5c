//! What keys and the mouse do.

use heapcheck::view::End;
use heapcheck::view::jobs::{Job, Told};
use heapcheck::view::model::{Ask, Input, Key, Model, Pane, View};

use super::Seen;

#[test]
fn the_finding_leads_to_its_block_and_back() {
    let mut seen = Seen::demo((100, 30));
    assert_eq!(seen.view(), (View::Finding, None));
    let said = seen.rows(Pane::Main).join(" ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("freed more than once") && said.contains("next steps"),
        "{said}"
    );
    // From the finding by its first address, by one in its words, and by the keyboard.
    let block = 0x55d2_374c_a000;
    seen.keys("<Enter>");
    assert_eq!(
        (seen.view(), seen.model().focus),
        ((View::Finding, None), Pane::Main)
    );
    seen.keys("j<Enter>");
    assert_eq!(seen.view(), (View::Address, Some(block)));
    let said = seen.rows(Pane::Main);
    assert!(said[0].contains("heap-block") && said.concat().contains("\"guests\""));
    seen.keys("g 7ffe5c8f7c18 <Enter>");
    assert_eq!(seen.view(), (View::Address, Some(0x7ffe_5c8f_7c18)));
    assert!(seen.rows(Pane::Main).concat().contains("connections+0x18"));
    seen.keys("[");
    assert_eq!(seen.view(), (View::Address, Some(block)));
    seen.keys("<BS>");
    assert_eq!(seen.view(), (View::Finding, None));
    assert_eq!(seen.model().place.cursor.row, 1, "where it was");
    seen.keys("<Forward>]");
    assert_eq!(seen.view(), (View::Address, Some(0x7ffe_5c8f_7c18)));
    seen.keys("<Back>]]");
    assert_eq!(
        seen.model().message.as_deref(),
        Some("nothing to go forward to")
    );
    seen.keys(":main<Enter>");
    assert!(
        seen.model()
            .message
            .as_deref()
            .unwrap()
            .starts_with("not an address")
    );
    assert_eq!(
        seen.keys(":12<Esc>").view(),
        (View::Address, Some(0x7ffe_5c8f_7c18))
    );
}

#[test]
fn panes_turn_and_the_cursor_moves_in_each() {
    let mut seen = Seen::demo((80, 24));
    let start = seen.model().focus;
    for pane in Pane::ALL.iter().cycle().skip(4).take(6) {
        seen.keys("<Tab>");
        assert_eq!(seen.model().focus, *pane);
    }
    assert_eq!(seen.model().focus, start);
    seen.keys("<BackTab>");
    for (keys, expected) in [
        ("<Home>", 0),
        ("j", 1),
        ("<Down>", 2),
        ("k<Up>", 0),
        ("<End>", seen.rows(Pane::Frame).len() - 1),
        ("j", seen.rows(Pane::Frame).len() - 1),
        ("<PgUp><Home>", 0),
        ("<PgDn>", 4),
        (
            "/rsp<Enter>",
            seen.rows(Pane::Frame)
                .iter()
                .position(|it| it.contains("rsp"))
                .unwrap(),
        ),
        ("<Home>G", seen.rows(Pane::Frame).len() - 1),
    ] {
        seen.keys(keys);
        let content = seen.model().content(Pane::Frame);
        assert_eq!(
            seen.model().cursor(Pane::Frame, &content).row,
            expected,
            "{keys}"
        );
    }
    seen.keys("/no such text<Enter>");
    assert_eq!(
        seen.model().message.as_deref(),
        Some("not in this pane: no such text")
    );
    // A frame further out has variables of its own.
    let inner = seen.rows(Pane::Frame);
    seen.keys("<BackTab>j");
    assert_eq!(seen.model().frame_index, 1);
    let outer = seen.rows(Pane::Frame);
    assert_ne!(inner, outer);
    assert!(
        outer.iter().any(|row| row.contains("0x7ffe5c8f7c")),
        "{outer:?}"
    );
    // What a register holds can be gone to.
    seen.keys("<Enter>/rsp<Enter><Enter>");
    assert_eq!(seen.view().0, View::Address);
    assert!(
        seen.rows(Pane::Main)[0].ends_with(": stack"),
        "{:?}",
        seen.rows(Pane::Main)
    );
    for quits in ["q", "<C-c>"] {
        let mut seen = Seen::demo((80, 24));
        assert_eq!(seen.keys(quits).end, Some(End::Quit));
    }
}

#[test]
fn the_tree_opens_step_by_step_and_goes_both_ways() {
    let mut seen = Seen::small("glibc-2.36", "dangling-member-O2", (100, 40));
    let in_use = block_in_use(&mut seen);
    seen.keys(&format!("g{in_use:x}<Enter>4"));
    let rows = seen.rows(Pane::Main);
    assert!(rows[0].starts_with("- held by"), "{rows:?}");
    let down = rows.iter().position(|row| row.starts_with("- points to"));
    let down = down.unwrap_or_else(|| panic!("{rows:?}"));
    seen.keys(" ");
    assert!(seen.rows(Pane::Main)[0].starts_with("+ "));
    assert_eq!(seen.rows(Pane::Main).len(), rows.len() + 1 - down);
    seen.keys("l");
    assert_eq!(seen.rows(Pane::Main), rows);
    // Whoever points at a block is pointed from there.
    let holder = rows.iter().position(|row| row.contains("in block 0x"));
    if let Some(holder) = holder {
        seen.keys(&"j".repeat(holder));
        seen.keys("l");
        assert!(seen.rows(Pane::Main).len() > rows.len());
        seen.keys("hh");
        let content = seen.model().content(Pane::Main);
        assert_eq!(seen.model().cursor(Pane::Main, &content).row, 0);
        seen.keys(&"j".repeat(holder));
        seen.keys("<Enter>4");
        let down = seen.rows(Pane::Main);
        let below = down
            .iter()
            .skip_while(|row| !row.starts_with("- points to"));
        assert!(
            below
                .clone()
                .any(|row| row.contains(&format!("{in_use:#x}"))),
            "{down:?}"
        );
    }
}

/// A block that another one holds, or else any that is in use.
fn block_in_use(seen: &mut Seen) -> u64 {
    seen.keys("6ttt");
    let rows = seen.rows(Pane::Main);
    let largest = rows.iter().filter_map(|row| {
        let digits = row.trim_start().strip_prefix("0x")?;
        u64::from_str_radix(digits.split(' ').next()?, 16).ok()
    });
    let blocks: Vec<u64> = largest.collect();
    let held = blocks.iter().find(|at| {
        seen.keys(&format!("g{at:x}<Enter>4"));
        seen.rows(Pane::Main)
            .iter()
            .any(|row| row.contains("in block 0x"))
    });
    *held.or(blocks.first()).expect("something is in use")
}

#[test]
fn tables_are_sorted_and_filtered() {
    let mut seen = Seen::small("glibc-2.36", "types-stripped", (120, 40));
    seen.keys("5");
    let column = |rows: &[String], column: usize| -> Vec<u64> {
        let cell = |row: &String| row.split_whitespace().nth(column).unwrap().replace(',', "");
        rows.iter().map(|row| cell(row).parse().unwrap()).collect()
    };
    let all = seen.rows(Pane::Main);
    assert!(all.len() > 2, "{all:?}");
    seen.keys("ss");
    let blocks = column(&seen.rows(Pane::Main), 1);
    assert!(blocks.is_sorted_by(|one, other| one >= other), "{blocks:?}");
    seen.keys("r");
    let blocks = column(&seen.rows(Pane::Main), 1);
    assert!(blocks.is_sorted(), "{blocks:?}");
    seen.keys("ssssss");
    assert_eq!(seen.rows(Pane::Main), all, "by no column again");
    let word = all[0].split_whitespace().nth(4).unwrap().to_owned();
    seen.keys(&format!("f{word}<Enter>"));
    assert_eq!(seen.rows(Pane::Main), [all[0].clone()]);
    seen.keys("<Enter>");
    assert_eq!(format!("{:#x}", seen.view().1.unwrap()), word);
    seen.keys("[f<C-u><Enter>");
    assert_eq!(seen.rows(Pane::Main).len(), all.len());
    seen.keys("1s");
    assert!(
        seen.model()
            .message
            .as_deref()
            .unwrap()
            .contains("only the tables")
    );
    let mut tables = vec![seen.keys("6").rows(Pane::Main)];
    for _ in 0..5 {
        tables.push(seen.keys("t").rows(Pane::Main));
    }
    assert!(tables.iter().all(|rows| !rows.is_empty()), "{tables:?}");
    assert_eq!(seen.keys("t").rows(Pane::Main), tables[0]);
}

#[test]
fn another_thread_has_other_frames() {
    let mut seen = Seen::small("2.10", "cross-thread-O2", (100, 30));
    let threads = seen.rows(Pane::Threads);
    assert!(
        threads.len() > 1 && threads[0].ends_with(" crashed"),
        "{threads:?}"
    );
    let frames = seen.rows(Pane::Frames);
    seen.keys("<Tab><Tab><Tab>j");
    assert_eq!(
        (seen.model().focus, seen.model().thread),
        (Pane::Threads, 1)
    );
    assert_ne!(seen.rows(Pane::Frames), frames);
    let frame = seen.model().frame.as_ref().unwrap();
    assert_eq!(
        (frame.id.thread, frame.id.frame, frame.is_explained),
        (1, 0, true)
    );
}

#[test]
fn the_mouse_chooses_follows_and_scrolls() {
    let mut seen = Seen::demo((80, 24));
    let place = |seen: &Seen, text: &str| -> (u16, u16) {
        let screen = seen.screen();
        let mut rows = (0..).zip(screen.lines());
        let found = rows.find_map(|(y, row)| {
            let x = row.find(text)?;
            Some((row[..x].chars().count() as u16, y))
        });
        found.unwrap_or_else(|| panic!("{text} is not on\n{screen}"))
    };
    let (x, y) = place(&seen, "main (");
    seen.input(Input::Click(x, y));
    assert_eq!(
        (seen.model().focus, seen.model().frame_index),
        (Pane::Frames, 1)
    );
    let (x, y) = place(&seen, "5Leaks");
    seen.input(Input::Click(x, y));
    assert_eq!(seen.view().0, View::Leaks);
    let (x, y) = place(&seen, "CRITICAL double-free");
    seen.input(Input::Click(x, y)).input(Input::Click(x, y));
    assert_eq!(seen.view().0, View::Finding);
    let before = seen.rows(Pane::Main);
    let (x, y) = place(&seen, "address      0x55d2374ca000");
    seen.input(Input::Wheel(x, y, 1));
    assert!(!seen.screen().contains(&before[0][..20]), "it moved");
    let (x, y) = place(&seen, "address      0x55d2374ca000");
    seen.input(Input::Click(x + 14, y));
    assert_eq!(seen.view(), (View::Address, Some(0x55d2_374c_a000)));
    // Outside of everything nothing happens.
    seen.input(Input::Click(5000, 5000))
        .input(Input::Wheel(5000, 5000, -1));
    seen.input(Input::Click(0, 0)).input(Input::Click(79, 23));
    assert_eq!(seen.view(), (View::Address, Some(0x55d2_374c_a000)));
}

#[test]
fn what_is_left_is_given_up_and_asked_for_again() {
    let mut model = Model::new(80, 24);
    model.told(Told::Checked(Box::default()));
    let key = |model: &mut Model, key| model.handle(Input::Key(key));
    assert_eq!(key(&mut model, Key::Char('5')), [Ask::Do(Job::Leaks)]);
    assert_eq!(key(&mut model, Key::Down), [], "it was asked for");
    assert_eq!(
        key(&mut model, Key::Char('6')),
        [Ask::Leave(View::Leaks), Ask::Do(Job::Usage)]
    );
    assert_eq!(model.told(Told::GivenUp(Job::Leaks)), []);
    assert_eq!(
        key(&mut model, Key::Char('5')),
        [Ask::Leave(View::Usage), Ask::Do(Job::Leaks)]
    );
    // The word that it was given up comes late: it is wanted again.
    key(&mut model, Key::Char('1'));
    key(&mut model, Key::Char('5'));
    assert_eq!(model.told(Told::GivenUp(Job::Leaks)), [Ask::Do(Job::Leaks)]);
    assert_eq!(model.told(Told::Failed(Job::Leaks, "a reason".into())), []);
    let said = model.content(Pane::Main);
    assert_eq!(said.rows[0].text(), "a reason");
    assert_eq!(
        model.told(Told::Closed("no core".into())),
        [Ask::Quit(Some("no core".into()))]
    );
}

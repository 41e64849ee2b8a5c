//! Frames as tools print them.

use crate::record::{Frame, Record};
use crate::text;

/// A frame of a sanitizer's stack: `#3 0x55d2 in f(int) /src/a.c:13:2 (prog+0x12) (BuildId: 5f)`. Gives the frame's number, too.
pub(super) fn sanitizer(line: &str) -> Option<(u64, Frame)> {
    let rest = line.trim_start().strip_prefix('#')?;
    let (number, rest) = text::leading_number(rest)?;
    let rest = rest.strip_prefix(' ')?.trim();
    let mut frame = Frame::default();
    let rest = match rest.strip_prefix("0x") {
        Some(_) => {
            let (address, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            frame.address = Some(text::address(address)?);
            rest
        }
        None => rest,
    };
    let rest = strip_build_id(rest.trim(), &mut frame);
    let rest = strip_module(rest, &mut frame);
    let rest = rest.strip_prefix("in ").unwrap_or(rest);
    let (function, location) = split_location(rest.trim());
    set_function(&mut frame, function);
    set_location(&mut frame, location);
    Some((number, frame))
}

/// Takes ` (BuildId: hex)` off the end.
fn strip_build_id<'a>(text: &'a str, frame: &mut Frame) -> &'a str {
    let Some((before, id)) = text.rsplit_once("(BuildId: ") else {
        return text;
    };
    let id = id.trim_end_matches(')');
    if !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        frame.build_id = Some(id.to_ascii_lowercase());
    }
    before.trim_end()
}

/// Takes ` (module+0xoffset)` off the end.
fn strip_module<'a>(text: &'a str, frame: &mut Frame) -> &'a str {
    let Some(inner) = text.strip_suffix(')') else {
        return text;
    };
    // A folder may hold parentheses: a path begins at its root.
    let Some(at) = inner
        .rfind(" (/")
        .or_else(|| inner.rfind(" ("))
        .map(|at| at + 2)
        .or_else(|| inner.starts_with('(').then_some(1))
    else {
        return text;
    };
    let module = &inner[at..];
    if module == "<unknown module>" {
        return inner[..at - 1].trim_end();
    }
    let Some((path, offset)) = module.rsplit_once("+0x") else {
        return text;
    };
    let Some(offset) = text::address(offset) else {
        return text;
    };
    Record::set_module(frame, path);
    frame.module_offset = Some(offset);
    inner[..at - 1].trim_end()
}

/// Splits `function location` where a location begins: at a path, `<null>`, or the last word if that ends in a line number.
fn split_location(text: &str) -> (&str, &str) {
    let mut depth = 0_i32;
    let mut last = None;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'o' if text[at..].starts_with("operator") => {
                // The symbol of an operator closes and opens nothing.
                at += "operator".len();
                while bytes.get(at).is_some_and(|byte| b"<>-=!".contains(byte)) {
                    at += 1;
                }
                continue;
            }
            b'(' | b'<' | b'{' | b'[' if !text[at..].starts_with("<null>") => depth += 1,
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b')' | b'>' | b'}' | b']' if !text[..=at].ends_with("<null>") => {
                depth = (depth - 1).max(0)
            }
            b' ' if depth == 0 => {
                let rest = text[at..].trim_start();
                if rest.starts_with('/')
                    || rest.starts_with("../")
                    || rest.starts_with("./")
                    || rest.starts_with("<null>")
                {
                    return (&text[..at], rest);
                }
                last = Some(at);
            }
            _ => {}
        }
        at += 1;
    }
    let last = last.or_else(|| text.rfind(' '));
    match last {
        Some(at) if ends_in_line(&text[at + 1..]) => (&text[..at], &text[at + 1..]),
        _ => (text, ""),
    }
}

fn ends_in_line(word: &str) -> bool {
    word.rsplit_once(':').is_some_and(|(before, digits)| {
        !before.is_empty() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Sets the function unless the text says that it is not known.
pub(super) fn set_function(frame: &mut Frame, function: &str) {
    let function = function.trim();
    // llvm-symbolizer gives a file symbol's name to functions that are local to the file.
    if [".c", ".cc", ".cpp", ".cxx", ".C", ".s", ".S"]
        .iter()
        .any(|end| function.ends_with(end))
    {
        frame.file.get_or_insert_with(|| function.to_owned());
        return;
    }
    if !matches!(
        function,
        "" | "<null>" | "??" | "???" | "[unknown]" | "<unknown>" | "<not available>"
    ) {
        frame.function = Some(function.to_owned());
    }
}

/// Sets file, line and column from `file:line:column`.
pub(super) fn set_location(frame: &mut Frame, location: &str) {
    let location = location.trim();
    if matches!(location, "" | "<null>" | "??" | "??:0") || location.starts_with("??:") {
        return;
    }
    let mut file = location;
    let mut numbers = Vec::new();
    while numbers.len() < 2 {
        let Some((before, after)) = file.rsplit_once(':') else {
            break;
        };
        let Some(number) = text::number(after) else {
            break;
        };
        numbers.push(number);
        file = before;
    }
    match numbers[..] {
        [column, line] => (frame.line, frame.column) = (Some(line), Some(column)),
        [line] => frame.line = Some(line),
        _ => {}
    }
    frame.line = frame.line.filter(|&line| line > 0);
    frame.file = Some(file.to_owned());
}

/// `symbol+0x12`: the function without the offset.
pub(super) fn without_offset(symbol: &str) -> &str {
    match symbol.rsplit_once("+0x") {
        Some((name, offset))
            if !name.is_empty() && offset.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            name
        }
        _ => symbol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> (Option<String>, Option<String>, Option<u64>, Option<String>) {
        let (_, frame) = sanitizer(line).unwrap();
        (frame.function, frame.file, frame.line, frame.module)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn forms_of_sanitizer_frames() {
        assert_eq!(
            parts("    #0 0x55 in taste /src/app/bakery.c:13"),
            (some("taste"), some("/src/app/bakery.c"), Some(13), None)
        );
        assert_eq!(
            parts("    #3 0x7f in __libc_start_call_main csu/../sysdeps/nptl/x.h:58:16"),
            (
                some("__libc_start_call_main"),
                some("csu/../sysdeps/nptl/x.h"),
                Some(58),
                None
            )
        );
        assert_eq!(
            parts("#0 0x55  (/src/app/bakery+0x12ec)"),
            (None, None, None, some("bakery"))
        );
        assert_eq!(
            parts("    #1 shop_boy(void*) const /a b/bakery.c:19:68 (bakery+0xd0) (BuildId: 0e5d)"),
            (
                some("shop_boy(void*) const"),
                some("/a b/bakery.c"),
                Some(19),
                some("bakery")
            )
        );
        assert_eq!(
            parts("    #0 free <null> (bakery+0x50204)"),
            (some("free"), None, None, some("bakery"))
        );
        assert_eq!(
            parts("    #0 <null> <null> (bakery+0x5)"),
            (None, None, None, some("bakery"))
        );
        assert_eq!(
            parts(
                "#4 0x1 in std::function<void (int)>::operator()(int) const /usr/include/f.h:5:9"
            ),
            (
                some("std::function<void (int)>::operator()(int) const"),
                some("/usr/include/f.h"),
                Some(5),
                None
            )
        );
        assert_eq!(
            parts("#1 0x1 in void at_night<lambda()::$_1>(lambda()::$_1) /w/l.cpp:28:51"),
            (
                some("void at_night<lambda()::$_1>(lambda()::$_1)"),
                some("/w/l.cpp"),
                Some(28),
                None
            )
        );
        assert_eq!(
            parts("#1 0x1 in a::operator<(b const&, b) /w/l.cpp:2"),
            (
                some("a::operator<(b const&, b)"),
                some("/w/l.cpp"),
                Some(2),
                None
            )
        );
        assert_eq!(
            parts("#1 0x1 in operator new[](unsigned long) (/x (1)/p+0x2)"),
            (some("operator new[](unsigned long)"), None, None, some("p"))
        );
        assert!(sanitizer("# 0 foo").is_none());
    }
}

//! Names of functions without what compilers, tools and builds add to them.

/// A function's name, reduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// Scopes and the function, outermost first, without template arguments and anonymous namespaces.
    pub parts: Vec<String>,
}

/// What a function without a name of its own is called.
pub(crate) const LAMBDA: &str = "{lambda}";

/// Most scopes of a name.
const MAX_PARTS: usize = 16;

impl Name {
    /// Reads a name as any tool prints it; mangled names are demangled.
    pub fn of(raw: &str) -> Self {
        let raw = raw.trim();
        let demangled;
        let text = if let Ok(rust) = rustc_demangle::try_demangle(raw) {
            demangled = format!("{rust:#}");
            &demangled
        } else if raw.starts_with("_Z") && raw.len() < 2048 {
            match cpp_demangle::Symbol::new(raw)
                .ok()
                .and_then(|symbol| symbol.demangle().ok())
            {
                Some(name) => {
                    demangled = name;
                    &demangled
                }
                None => raw,
            }
        } else {
            raw
        };
        Self { parts: scan(text) }
    }

    /// The name as it stands in a key.
    pub fn text(&self) -> String {
        self.parts.join("::")
    }

    /// The function without its scopes.
    pub fn last(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }
}

/// Splits a name into its parts.
fn scan(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut parts: Vec<String> = Vec::new();
    let mut part = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if part.is_empty() && is_operator(rest) {
            let (name, length) = operator(rest);
            part = name;
            at += length;
            continue;
        }
        match bytes[at] {
            b':' if rest.starts_with("::") => {
                finish(&mut parts, &mut part);
                at += 2;
            }
            b'<' | b'(' | b'{' | b'[' | b'\'' | b'`' => {
                let length = group(rest);
                let inside = &rest[..length];
                if inside.contains("lambda") || inside.contains("closure") {
                    if part.is_empty()
                        && (parts.is_empty()
                            || !inside.starts_with('<')
                            || inside.starts_with("<lambda"))
                    {
                        LAMBDA.clone_into(&mut part);
                    }
                } else if inside.starts_with("(*") && part.is_empty() {
                    part.push_str(inside); // Go's receivers
                }
                at += length;
                if inside.starts_with('(')
                    && !part.is_empty()
                    && !text[at..].trim_start_matches(" const").starts_with("::")
                    && !text[at..].starts_with('.')
                {
                    // Parameters end a name, unless something is local to the function.
                    break;
                }
                if inside.starts_with('(') {
                    at += text[at..].len() - text[at..].trim_start_matches(" const").len();
                }
            }
            b'$' if rest.starts_with("$_") => {
                LAMBDA.clone_into(&mut part);
                at += 2 + rest[2..].bytes().take_while(u8::is_ascii_digit).count();
            }
            b' ' => {
                if rest.starts_with(" [clone") {
                    break;
                }
                // What stands before was the type of the result.
                parts.clear();
                part.clear();
                at += 1;
            }
            b'*' | b'&' => at += 1,
            b'@' if !part.is_empty() => break, // a symbol's version
            _ => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                part.push_str(&rest[..length]);
                at += length;
            }
        }
    }
    finish(&mut parts, &mut part);
    if parts.last().map(String::as_str) == Some("operator()") {
        // A call operator of nothing, or of a lambda, is the lambda.
        match parts.len() {
            1 => LAMBDA.clone_into(&mut parts[0]),
            length if parts[length - 2] == LAMBDA => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts
}

/// Ends a part: suffixes of clones are cut, hashes dropped.
fn finish(parts: &mut Vec<String>, part: &mut String) {
    let text = std::mem::take(part);
    let text = without_clone(&text);
    let is_hash = text.len() == 17
        && text.starts_with('h')
        && text[1..].bytes().all(|byte| byte.is_ascii_hexdigit());
    if !text.is_empty() && !is_hash && parts.len() < MAX_PARTS {
        parts.push(text.to_owned());
    }
}

/// The name without `.cold`, `.part.0`, `.isra.0`, `.constprop.0`, `.lto_priv.3`, `.llvm.12345`.
fn without_clone(name: &str) -> &str {
    let mut name = name;
    loop {
        let Some((before, last)) = name.rsplit_once('.') else {
            return name;
        };
        let word = if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
            before.rsplit_once('.')
        } else {
            Some((before, last))
        };
        match word {
            Some((
                before,
                "cold" | "part" | "isra" | "constprop" | "lto_priv" | "llvm" | "localalias"
                | "clone" | "hot" | "unlikely",
            )) if !before.is_empty() => {
                name = before;
            }
            _ => return name,
        }
    }
}

fn is_operator(rest: &str) -> bool {
    rest.strip_prefix("operator")
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// The operator that the text begins with, and its length.
fn operator(rest: &str) -> (String, usize) {
    let after = &rest["operator".len()..];
    let symbols = if after.starts_with("()") || after.starts_with("[]") {
        2
    } else {
        after
            .bytes()
            .take_while(|byte| b"<>=!+-*/%^&|~,".contains(byte))
            .count()
    };
    if symbols > 0 {
        // `operator<<int>` is `<` with arguments only if more follows; `<<` and `<` are told apart by the parenthesis.
        return (
            format!("operator{}", &after[..symbols]),
            "operator".len() + symbols,
        );
    }
    // `operator new[]`, `operator bool`, `operator""_x`.
    let words = after.find('(').unwrap_or(after.len());
    let name = after[..words].split('<').next().unwrap_or("").trim();
    (format!("operator {name}"), "operator".len() + words)
}

/// The length of the bracket that the text begins with, with all that is inside.
fn group(text: &str) -> usize {
    let bytes = text.as_bytes();
    let close = match bytes.first() {
        Some(b'\'' | b'`') => {
            return text[1..].find('\'').map_or(text.len(), |end| end + 2);
        }
        Some(b'<') => b'>',
        Some(b'(') => b')',
        Some(b'{') => b'}',
        _ => b']',
    };
    let open = bytes[0];
    let mut depth = 0_u32;
    for (at, &byte) in bytes.iter().enumerate() {
        let arrow = byte == b'>' && at > 0 && bytes[at - 1] == b'-';
        if byte == open {
            depth += 1;
        } else if byte == close && !arrow {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tools_and_compilers() {
        for (raw, expected) in [
            ("taste", "taste"),
            ("mirror()", "mirror"),
            ("signals::Keeper::sleep(char*)", "signals::Keeper::sleep"),
            (
                "signals::(anonymous namespace)::Lens::polish(char*)",
                "signals::Lens::polish",
            ),
            ("signals::Mirror<int>::turn(int)", "signals::Mirror::turn"),
            ("void at_night<lambda()::$_1>(lambda()::$_1)", "at_night"),
            ("at_night<lambda()::<lambda()> >", "at_night"),
            ("operator()", "{lambda}"),
            ("lambda()::$_0::operator()(int) const", "lambda::{lambda}"),
            ("crew()::{lambda()#1}::operator()() const", "crew::{lambda}"),
            (
                "crew()::'lambda'(int)::operator()(int) const",
                "crew::{lambda}",
            ),
            ("Foo::operator()(int) const", "Foo::operator()"),
            (
                "std::function<void (int)>::operator()(int) const",
                "std::function::operator()",
            ),
            ("operator new[](unsigned long)", "operator new[]"),
            ("a::operator<<(std::ostream&, a::b const&)", "a::operator<<"),
            ("a::b::operator bool() const", "a::b::operator bool"),
            ("parse.constprop.0.cold", "parse"),
            ("parse(int) [clone .part.0]", "parse"),
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("_ZN7signals6Keeper5sleepEPc", "signals::Keeper::sleep"),
            (
                "_ZN4core3ptr13drop_in_place17h0123456789abcdefE",
                "core::ptr::drop_in_place",
            ),
            ("app::run::{{closure}}", "app::run::{lambda}"),
            (
                "std::enable_if<__and_<std::is_void<void>, x>::value, void>::type std::__invoke_r<void, f&>(f&)",
                "std::__invoke_r",
            ),
            ("unsigned long const* f<int>(int)", "f"),
            ("", ""),
            ("(((((", ""),
            ("<<<>", ""),
        ] {
            assert_eq!(Name::of(raw).text(), expected, "{raw}");
        }
    }
}

//! `${parameter}` in texts.

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// As it stands.
    Text(&'a str),
    /// The value of this parameter.
    Parameter(&'a str),
}

/// Longest name of a parameter.
const NAME_MAX: usize = 64;

/// Whether `text` can be the name of a parameter.
pub(super) fn is_name(text: &str) -> bool {
    let rest = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    text.len() <= NAME_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(rest)
}

/// Takes a text apart. `$$` is a dollar sign, and so is one before anything but `{`.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        if let Some(second) = after.strip_prefix('$') {
            push(&mut parts, &rest[..=at]);
            rest = second;
        } else if let Some(inner) = after.strip_prefix('{') {
            push(&mut parts, &rest[..at]);
            let end = inner
                .find('}')
                .ok_or("`${` has no `}`: write `$$` for a dollar sign")?;
            let name = &inner[..end];
            if !is_name(name) {
                let shown: String = name.chars().take(80).collect();
                return Err(format!(
                    "`${{{shown}}}` names no parameter: a-z first, then a-z, 0-9 and `_`; write `$$` \
                     for a dollar sign"
                ));
            }
            parts.push(Part::Parameter(name));
            rest = &inner[end + 1..];
        } else {
            push(&mut parts, &rest[..=at]);
            rest = after;
        }
    }
    push(&mut parts, rest);
    Ok(parts)
}

fn push<'a>(parts: &mut Vec<Part<'a>>, text: &'a str) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        let check = |text: &str| -> String {
            let parts = parts(text).unwrap();
            let shown = parts.into_iter().map(|part| match part {
                Part::Text(text) => format!("[{text}]"),
                Part::Parameter(name) => format!("<{name}>"),
            });
            shown.collect()
        };
        assert_eq!(check(""), "");
        assert_eq!(check("${root}"), "<root>");
        assert_eq!(check("a${b}c${d}"), "[a]<b>[c]<d>");
        assert_eq!(check("$${b} costs 5$ or $x"), "[$][{b} costs 5$][ or $][x]");
        assert_eq!(check("$$$${x}"), "[$][$][{x}]");
        assert_eq!(check("$$${x}"), "[$]<x>");
        for bad in ["${", "${a", "${}", "${A}", "${a b}", "${1a}"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }
}

//! JSON as editors keep it: with comments and trailing commas, changed without touching the rest.
//!
//! The configurations of MCP clients belong to people. [`set`] changes one member of such a text and
//! leaves every other byte as it was: comments, order, indentation, numbers.

use std::ops::Range;

use serde_json::{Map, Value};

/// Deepest nesting that is read.
const DEPTH: usize = 100;

/// A text that cannot be read, or not be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON, even with comments.
    #[error("it is neither JSON nor JSON with comments: {0}")]
    Malformed(String),
    /// Something on the way to the member is no object.
    #[error("`{0}` is no object")]
    NoObject(String),
    /// The changed text would mean something else than it should.
    #[error("it cannot be changed safely; change it by hand")]
    Unsafe,
}

/// Reads a text. An empty one holds an empty object.
pub fn parse(text: &str) -> Result<Value, Error> {
    let plain = plain(text);
    if plain.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_str(&plain).map_err(|error| Error::Malformed(error.to_string()))
}

/// The text with the member at `path` set to `value`; objects that are missing on the way are made.
pub fn set(text: &str, path: &[&str], value: &Value) -> Result<String, Error> {
    let mut expected = parse(text)?;
    put(&mut expected, path, value)?;
    let text = if plain(text).trim().is_empty() {
        "{}\n"
    } else {
        text
    };
    let changed = splice(text, path, value)?;
    // The text was scanned by hand: what a parser makes of it decides.
    if parse(&changed)? == expected {
        Ok(changed)
    } else {
        Err(Error::Unsafe)
    }
}

/// What [`set`] means, on values.
fn put(whole: &mut Value, path: &[&str], value: &Value) -> Result<(), Error> {
    let Some((last, above)) = path.split_last() else {
        return Err(Error::Unsafe);
    };
    let mut place = whole;
    let mut name = "the whole";
    for key in above {
        let object = place.as_object_mut();
        let object = object.ok_or_else(|| Error::NoObject(name.to_owned()))?;
        place = object
            .entry(*key)
            .or_insert_with(|| Value::Object(Map::new()));
        name = key;
    }
    let object = place.as_object_mut();
    let object = object.ok_or_else(|| Error::NoObject(name.to_owned()))?;
    object.insert((*last).to_owned(), value.clone());
    Ok(())
}

fn splice(text: &str, path: &[&str], value: &Value) -> Result<String, Error> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip();
    let mut object = scanner.object()?;
    for (index, key) in path.iter().enumerate() {
        let is_last = index + 1 == path.len();
        // When a key stands twice, parsers take the last.
        let found = object.members.iter().rfind(|member| member.key == *key);
        match found {
            Some(member) if is_last => {
                let layout = Layout::of(text, member.start);
                return Ok(replace(text, member.value.clone(), &layout.render(value)));
            }
            Some(member) => {
                scanner.at = member.value.start;
                object = scanner.object()?;
            }
            None => {
                let inner = path[index + 1..].iter().rev();
                let value = inner.fold(value.clone(), |value, key| {
                    Map::from_iter([((*key).to_owned(), value)]).into()
                });
                return Ok(object.with(text, key, &value));
            }
        }
    }
    Err(Error::Unsafe)
}

fn replace(text: &str, range: Range<usize>, with: &str) -> String {
    [&text[..range.start], with, &text[range.end..]].concat()
}

/// An object in a text.
struct Object {
    /// Where its opening bracket is.
    open: usize,
    /// Where its closing bracket is.
    close: usize,
    members: Vec<Member>,
}

struct Member {
    key: String,
    start: usize,
    value: Range<usize>,
    /// Whether a comma follows.
    comma: Option<usize>,
}

impl Object {
    /// The text with another member at the end of this object.
    fn with(&self, text: &str, key: &str, value: &Value) -> String {
        let Some(last) = self.members.last() else {
            return self.with_first(text, key, value);
        };
        let layout = Layout::of(text, last.start);
        let member = layout.member(key, value);
        let after = last.comma.map_or(last.value.end, |comma| comma + 1);
        let comma = if last.comma.is_some() { "" } else { "," };
        if !layout.is_alone {
            return replace(text, after..after, &format!("{comma} {member}"));
        }
        // A comment behind the last member stays with it.
        let rest = &text[after..self.close];
        let line = &rest[..rest.find('\n').unwrap_or(0)];
        let is_free = line.trim().is_empty() || line.trim_start().starts_with("//");
        let end = after + if is_free { line.trim_end().len() } else { 0 };
        let text = replace(text, end..end, &format!("{}{member}", layout.line()));
        replace(&text, after..after, comma)
    }

    fn with_first(&self, text: &str, key: &str, value: &Value) -> String {
        let outer = Layout::of(text, self.open);
        let inner = outer.inside();
        let member = inner.member(key, value);
        let within = &text[self.open + 1..self.close];
        // A comment in an otherwise empty object stays before the member.
        let kept = within.trim_end();
        let new = format!("{kept}{}{member}{}", inner.line(), outer.line());
        replace(text, self.open + 1..self.close, &new)
    }
}

/// How the members around a place are laid out.
struct Layout {
    /// Spaces before the member.
    indent: String,
    /// One step of indentation.
    unit: String,
    /// How lines end.
    end: &'static str,
    /// Whether members stand on lines of their own.
    is_alone: bool,
}

impl Layout {
    /// The layout of the line that `at` is in.
    fn of(text: &str, at: usize) -> Self {
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = &text[start..at];
        let blank = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
        let unit = text
            .lines()
            .map(|line| &line[..blank(line)])
            .find(|space| !space.is_empty());
        Self {
            indent: before[..blank(before)].to_owned(),
            unit: unit.unwrap_or("  ").to_owned(),
            end: if text.contains("\r\n") { "\r\n" } else { "\n" },
            is_alone: before.trim().is_empty(),
        }
    }

    /// The layout one step deeper, each member on a line of its own.
    fn inside(&self) -> Self {
        Self {
            indent: format!("{}{}", self.indent, self.unit),
            unit: self.unit.clone(),
            end: self.end,
            is_alone: true,
        }
    }

    /// The beginning of a new line.
    fn line(&self) -> String {
        format!("{}{}", self.end, self.indent)
    }

    fn member(&self, key: &str, value: &Value) -> String {
        format!("{}: {}", Value::from(key), self.render(value))
    }

    fn render(&self, value: &Value) -> String {
        match value {
            Value::Object(object) if self.is_alone && !object.is_empty() => {
                let inner = self.inside();
                let members: Vec<String> = object
                    .iter()
                    .map(|(key, value)| format!("{}{}", inner.line(), inner.member(key, value)))
                    .collect();
                format!("{{{}{}}}", members.join(","), self.line())
            }
            other => other.to_string(),
        }
    }
}

/// Walks over a text that is known to parse.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches(|letter: char| {
                letter.is_ascii_whitespace() || letter == '\u{feff}'
            });
            self.at += rest.len() - trimmed.len();
            let length = comment(trimmed);
            if length == 0 {
                return;
            }
            self.at += length;
        }
    }

    fn object(&mut self) -> Result<Object, Error> {
        let open = self.at;
        let mut members = Vec::new();
        if !self.take(b'{') {
            return Err(Error::Unsafe);
        }
        loop {
            self.skip();
            if self.take(b'}') {
                return Ok(Object {
                    open,
                    close: self.at - 1,
                    members,
                });
            }
            let start = self.at;
            let quoted = self.value(0)?;
            let key = serde_json::from_str(&self.text[quoted]).map_err(|_| Error::Unsafe)?;
            self.skip();
            if !self.take(b':') {
                return Err(Error::Unsafe);
            }
            self.skip();
            let value = self.value(0)?;
            self.skip();
            let comma = self.take(b',').then(|| self.at - 1);
            members.push(Member {
                key,
                start,
                value,
                comma,
            });
        }
    }

    /// Passes over one value of any kind; brackets are only counted.
    fn value(&mut self, depth: usize) -> Result<Range<usize>, Error> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'{' | b'[') if depth < DEPTH => {
                self.at += 1;
                loop {
                    self.skip();
                    match self.peek() {
                        Some(b'}' | b']') => {
                            self.at += 1;
                            break;
                        }
                        Some(b',' | b':') => self.at += 1,
                        Some(_) => {
                            self.value(depth + 1)?;
                        }
                        None => return Err(Error::Unsafe),
                    }
                }
            }
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                let rest = &self.text[start..];
                let is_part =
                    |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
                self.at += rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
            }
            _ => return Err(Error::Unsafe),
        }
        Ok(start..self.at)
    }

    fn string(&mut self) -> Result<(), Error> {
        let mut is_escaped = true; // the opening quote
        for (index, byte) in self.text.as_bytes()[self.at..].iter().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.at += index + 1;
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(Error::Unsafe)
    }
}

/// The length of the comment that a text begins with; 0 when it begins with none.
fn comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    let block = text.strip_prefix("/*");
    block.map_or(0, |inside| {
        inside.find("*/").map_or(text.len(), |end| end + 4)
    })
}

/// JSON without comments, and without commas before a closing bracket. Comments become blanks, so
/// that places in error messages stay right.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut comma = None;
    let mut before = '[';
    while let Some(letter) = rest.chars().next() {
        let comment = comment(rest);
        let mut length = letter.len_utf8();
        if comment > 0 {
            let kept = |letter| if letter == '\n' { '\n' } else { ' ' };
            out.extend(rest[..comment].chars().map(kept));
            rest = &rest[comment..];
            continue;
        }
        match letter {
            '"' => length = string_length(rest),
            // Only one that follows a value.
            ',' => comma = (!"[{,:".contains(before)).then_some(out.len()),
            '}' | ']' => {
                if let Some(at) = comma.take() {
                    out.replace_range(at..=at, " ");
                }
            }
            _ => {}
        }
        if !letter.is_ascii_whitespace() {
            comma = comma.filter(|_| letter == ',');
            before = letter;
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// The length of the string that a text begins with, up to the end of the text when it has none.
fn string_length(text: &str) -> usize {
    let mut scanner = Scanner { text, at: 0 };
    scanner.string().map_or(text.len(), |()| scanner.at)
}

#[cfg(test)]
mod tests;

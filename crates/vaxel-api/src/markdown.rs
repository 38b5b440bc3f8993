//! Turns the pages of `docs/errors` into HTML: headings, paragraphs, lists, code and links, which is
//! all that those pages use. Everything is escaped first; a page can hold no markup of its own.

use std::fmt::Write;

/// The HTML of `text`, without a frame.
pub(crate) fn to_html(text: &str) -> String {
    let mut html = String::with_capacity(text.len() * 2);
    let mut open = Block::None;
    for line in text.lines() {
        open = match (open, line.trim_end()) {
            (Block::Code, "```") => close(&mut html, Block::Code),
            (Block::Code, _) => {
                html.push_str(&escape(line));
                html.push('\n');
                Block::Code
            }
            (open, line) if line.starts_with("```") => {
                close(&mut html, open);
                html.push_str("<pre><code>");
                Block::Code
            }
            (open, "") => close(&mut html, open),
            (open, line) => text_line(&mut html, open, line),
        };
    }
    close(&mut html, open);
    html
}

/// What a line can continue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Paragraph,
    List,
    Code,
}

fn text_line(html: &mut String, open: Block, line: &str) -> Block {
    if let Some((level, title)) = heading(line) {
        close(html, open);
        // Writing to a string cannot fail.
        let _ = writeln!(html, "<h{level}>{}</h{level}>", inline(title));
        return Block::None;
    }
    if let Some(item) = line.trim_start().strip_prefix("- ") {
        if open == Block::List {
            html.push_str("</li>\n<li>");
        } else {
            close(html, open);
            html.push_str("<ul>\n<li>");
        }
        html.push_str(&inline(item));
        return Block::List;
    }
    match open {
        Block::None | Block::Code => html.push_str("<p>"),
        Block::Paragraph | Block::List => html.push('\n'),
    }
    html.push_str(&inline(line.trim_start()));
    if open == Block::List {
        Block::List
    } else {
        Block::Paragraph
    }
}

fn close(html: &mut String, open: Block) -> Block {
    html.push_str(match open {
        Block::None => "",
        Block::Paragraph => "</p>\n",
        Block::List => "</li>\n</ul>\n",
        Block::Code => "</code></pre>\n",
    });
    Block::None
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let title = line[level..].strip_prefix(' ')?;
    (1..=4).contains(&level).then_some((level, title))
}

/// `code`, **strong** and `[text](target)`, in escaped text.
fn inline(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            html.push_str("<code>");
            html.push_str(&escape(part));
            html.push_str("</code>");
        } else {
            html.push_str(&strong(&escape(part)));
        }
    }
    html
}

fn strong(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in text.split("**").enumerate() {
        match (index, index % 2) {
            (0, _) => {}
            (_, 1) => html.push_str("<strong>"),
            _ => html.push_str("</strong>"),
        }
        html.push_str(&links(part));
    }
    html
}

fn links(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some((before, label, target, after)) = first_link(rest) {
        // Writing to a string cannot fail.
        let _ = write!(html, "{before}<a href=\"{}\">{label}</a>", page(target));
        rest = after;
    }
    html.push_str(rest);
    html
}

fn first_link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (label, rest) = rest.split_once("](")?;
    let (target, after) = rest.split_once(')')?;
    let safe = !target.contains(':') || target.starts_with("https://");
    safe.then_some((before, label, target, after))
}

/// A link to another page's file is a link to that page.
fn page(target: &str) -> &str {
    target.strip_suffix(".md").unwrap_or(target)
}

/// Text that is safe inside HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_html_and_brings_no_markup_of_its_own() {
        let html =
            to_html("# A `b`\n\nOne <two>\nthree **four**\n\n- x\n- [y](z.md)\n\n```\na<b\n```\n");
        assert_eq!(
            html,
            "<h1>A <code>b</code></h1>\n<p>One &lt;two&gt;\nthree <strong>four</strong></p>\n<ul>\n\
             <li>x</li>\n<li><a href=\"z\">y</a></li>\n</ul>\n<pre><code>a&lt;b\n</code></pre>\n"
        );
        assert!(!to_html("[x](javascript:alert(1))").contains("href"));
    }
}

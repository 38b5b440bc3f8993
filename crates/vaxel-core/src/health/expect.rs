//! What a tool should answer to a functional check, and whether it did.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest automaton of a pattern, bytes.
const PATTERN: usize = 256 * 1024;
/// Characters of an answer that are shown in a sentence.
const SHOWN: usize = 120;

/// What a tool should answer. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Expectation {
    /// Whether the tool should say that it failed; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// The text holds this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// A string: the text is exactly this. Anything else: the structured content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub equals: Option<Value>,
    /// The text matches this regular expression (in linear time: no look-around, no back-references).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}

/// What a tool answered, as far as it is judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolAnswer {
    /// The tool says that it failed.
    pub is_error: bool,
    /// Its text content, a line end between the parts.
    pub text: String,
    /// Its structured content.
    pub structured: Option<Value>,
}

impl ToolAnswer {
    /// Reads a `CallToolResult`; `Err` says why it is none.
    pub fn read(result: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default)]
            content: Vec<Part>,
            #[serde(default)]
            structured_content: Option<Value>,
            #[serde(default)]
            is_error: bool,
        }
        #[derive(Deserialize)]
        struct Part {
            #[serde(default)]
            text: Option<String>,
        }
        let raw: Raw = serde_json::from_slice(result)
            .map_err(|error| format!("its answer is no result of a tool: {error}"))?;
        let texts: Vec<String> = raw
            .content
            .into_iter()
            .filter_map(|part| part.text)
            .collect();
        Ok(Self {
            is_error: raw.is_error,
            text: texts.join("\n"),
            structured: raw.structured_content,
        })
    }
}

impl Expectation {
    /// Whether `answer` is what is expected; `Err` says what is not.
    pub fn judge(&self, answer: &ToolAnswer) -> Result<(), String> {
        let shown = || shorten(&answer.text);
        match (self.is_error.unwrap_or(false), answer.is_error) {
            (false, true) => return Err(format!("says that it failed: {}", shown())),
            (true, false) => {
                return Err(format!("should say that it failed, but says {}", shown()));
            }
            (true, true) | (false, false) => {}
        }
        if let Some(part) = &self.contains
            && !answer.text.contains(part.as_str())
        {
            return Err(format!(
                "answers {}, which does not hold {}",
                shown(),
                shorten(part)
            ));
        }
        match &self.equals {
            None => {}
            Some(Value::String(text)) if *text == answer.text => {}
            Some(Value::String(text)) => {
                return Err(format!("answers {} instead of {}", shown(), shorten(text)));
            }
            Some(value) if answer.structured.as_ref() == Some(value) => {}
            Some(value) => {
                let found = answer.structured.as_ref().map(ToString::to_string);
                let found = found.map_or_else(|| "nothing".to_owned(), |found| shorten(&found));
                let value = shorten(&value.to_string());
                return Err(format!(
                    "answers {found} as structured content instead of {value}"
                ));
            }
        }
        match &self.matches {
            Some(text) if !pattern(text)?.is_match(&answer.text) => Err(format!(
                "answers {}, which does not match {}",
                shown(),
                shorten(text)
            )),
            _ => Ok(()),
        }
    }
}

/// A regular expression, bounded in size; `Err` says what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!(
            "is not a regular expression: {}",
            last.trim_start_matches("error: ")
        )
    })
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn judge(expect: &Value, result: &Value) -> Result<(), String> {
        let expect: Expectation = serde_json::from_value(expect.clone()).unwrap();
        expect.judge(&ToolAnswer::read(result.to_string().as_bytes())?)
    }

    #[test]
    fn an_answer_is_judged_by_everything_that_is_expected() {
        let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
        let failed = json!({"content": [{"type": "text", "text": "no"}], "isError": true});
        let structured = json!({"content": [], "structuredContent": {"sum": 3}});
        let table = [
            (json!({}), text("anything"), None),
            (json!({}), failed.clone(), Some("says that it failed: `no`")),
            (json!({"is_error": true}), failed, None),
            (
                json!({"is_error": true}),
                text("ok"),
                Some("should say that it failed"),
            ),
            (json!({"contains": "ell"}), text("hello"), None),
            (
                json!({"contains": "x"}),
                text("hello"),
                Some("answers `hello`, which does not hold `x`"),
            ),
            (json!({"equals": "hello"}), text("hello"), None),
            (
                json!({"equals": "hello"}),
                text("hello "),
                Some("instead of `hello`"),
            ),
            (json!({"equals": {"sum": 3}}), structured.clone(), None),
            (
                json!({"equals": {"sum": 4}}),
                structured,
                Some("`{\"sum\":3}` as structured"),
            ),
            (
                json!({"equals": {"sum": 4}}),
                text("4"),
                Some("answers nothing as structured"),
            ),
            (json!({"matches": "^h.+o$"}), text("hello"), None),
            (
                json!({"matches": "^h$"}),
                text("hello"),
                Some("which does not match `^h$`"),
            ),
            (
                json!({}),
                json!({"content": 3}),
                Some("no result of a tool"),
            ),
        ];
        for (expect, result, problem) in table {
            match (judge(&expect, &result), problem) {
                (Ok(()), None) => {}
                (Err(said), Some(part)) => assert!(said.contains(part), "{said}"),
                (judged, _) => panic!("{expect} of {result}: {judged:?}"),
            }
        }
    }

    #[test]
    fn the_parts_of_a_text_are_lines_and_what_is_no_text_is_left_out() {
        let result = json!({"content": [{"type": "text", "text": "a"}, {"type": "image", "data": "x"},
            {"type": "text", "text": "b"}]});
        assert_eq!(judge(&json!({"equals": "a\nb"}), &result), Ok(()));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_judge(bytes: Vec<u8>, text: String, part: String) {
            let _ = ToolAnswer::read(&bytes);
            let expect = Expectation { contains: Some(part.clone()), ..Expectation::default() };
            let answer = ToolAnswer { text: text.clone(), ..ToolAnswer::default() };
            prop_assert_eq!(expect.judge(&answer).is_ok(), text.contains(&part));
        }
    }
}

//! What a peer declares that it can do, said in the words of another revision (the capabilities pages
//! of the five schemas; MCP 2026-07-28, Versioning).
//!
//! Nothing is ever added that the peer did not say: a capability that the other revision has no word
//! for is left out, vendor members pass as they are.

use serde_json::value::RawValue;

use crate::{
    meta,
    revision::{Era, Revision},
};

/// The extension of 2026-07-28 by which work goes on after its call was answered (SEP-2663).
pub const TASKS: &str = "io.modelcontextprotocol/tasks";

/// The `capabilities` of a legacy client of `revision`, as a modern request declares them.
pub fn client_to_modern(revision: Revision, capabilities: &RawValue) -> Vec<u8> {
    let declared = meta::members(capabilities.get()).unwrap_or_default();
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(3);
    let mut dropped = vec!["tasks"];
    // The extension's tasks are not those of 2025-11-25, and older clients know neither.
    let extensions = declared.iter().find(|(name, _)| name == "extensions");
    let extensions = extensions.map(|(_, all)| meta::rewrite(Some(all), |name| name == TASKS, &[]));
    if let Some(extensions) = &extensions {
        set.push(("extensions", extensions));
    }
    for (name, value) in &declared {
        match &**name {
            // `listChanged` is gone.
            "roots" => set.push(("roots", b"{}")),
            "sampling" if revision < Revision::V2025_11_25 => set.push(("sampling", b"{}")),
            "elicitation" if revision < Revision::V2025_06_18 => dropped.push("elicitation"),
            // Before there were two modes, there was this one; later it is what `{}` stands for.
            "elicitation" if revision < Revision::V2025_11_25 || is_empty(value) => {
                set.push(("elicitation", br#"{"form":{}}"#));
            }
            _ => {}
        }
    }
    meta::rewrite(Some(capabilities), |name| dropped.contains(&name), &set)
}

/// The `capabilities` of a modern request, as `initialize` declares them to a server of `revision`.
pub fn client_to_legacy(revision: Revision, capabilities: &RawValue) -> Vec<u8> {
    let declared = meta::members(capabilities.get()).unwrap_or_default();
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(3);
    // Tasks of 2025-11-25 are not those of the extension.
    let mut dropped = vec!["tasks"];
    for (name, value) in &declared {
        match &**name {
            "roots" => set.push(("roots", b"{}")),
            "sampling" if revision < Revision::V2025_11_25 => set.push(("sampling", b"{}")),
            "elicitation" if revision < Revision::V2025_11_25 => {
                if revision == Revision::V2025_06_18 && takes_forms(value) {
                    set.push(("elicitation", b"{}"));
                } else {
                    dropped.push("elicitation");
                }
            }
            _ => {}
        }
    }
    meta::rewrite(Some(capabilities), |name| dropped.contains(&name), &set)
}

/// The `capabilities` of a server, as a peer of `revision` reads them: the experimental tasks belong
/// to 2025-11-25 alone, completion is younger than 2024-11-05.
pub fn server_for(revision: Revision, capabilities: &RawValue) -> Vec<u8> {
    let leave_out = |name: &str| match name {
        "tasks" => revision != Revision::V2025_11_25,
        "completions" => revision < Revision::V2025_03_26,
        // `subscriptions/listen` is how a modern client subscribes, whatever it finds here.
        _ => false,
    };
    meta::rewrite(Some(capabilities), leave_out, &[])
}

/// Which requests of a server a client that declares `capabilities` in `revision` answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "five independent abilities")]
pub struct Answers {
    /// `roots/list`.
    pub roots: bool,
    /// `sampling/createMessage`.
    pub sampling: bool,
    /// The same with tools.
    pub sampling_tools: bool,
    /// `elicitation/create` with a form.
    pub forms: bool,
    /// `elicitation/create` with a URL.
    pub urls: bool,
}

impl Answers {
    /// Reads a client's declaration. The modern era and 2025-11-25 use the same words.
    pub fn of(revision: Revision, capabilities: &RawValue) -> Self {
        let mut found = Self::default();
        let newest = revision.era() == Era::Modern || revision == Revision::LATEST_LEGACY;
        for (name, value) in meta::members(capabilities.get()).unwrap_or_default() {
            match &*name {
                "roots" => found.roots = true,
                "sampling" => {
                    found.sampling = true;
                    found.sampling_tools = newest && declares(value, "tools");
                }
                "elicitation" if revision >= Revision::V2025_06_18 => {
                    found.forms = !newest || takes_forms(value);
                    found.urls = newest && declares(value, "url");
                }
                _ => {}
            }
        }
        found
    }
}

impl Answers {
    /// Everything that a gateway can pass on in the middle of a call.
    pub const RELAYED: Self = Self {
        roots: false,
        sampling: true,
        sampling_tools: true,
        forms: true,
        urls: true,
    };

    /// The `capabilities` by which a client of `revision` of the legacy era declares these answers.
    pub fn declared(self, revision: Revision) -> Vec<u8> {
        let mut modes = vec![b'{'];
        for (mode, answers) in [("form", self.forms), ("url", self.urls)] {
            if answers {
                meta::member(&mut modes, mode, b"{}");
            }
        }
        modes.push(b'}');
        let sampling: &[u8] = if self.sampling_tools {
            br#"{"tools":{}}"#
        } else {
            b"{}"
        };
        let mut all = vec![b'{'];
        if self.roots {
            meta::member(&mut all, "roots", b"{}");
        }
        if self.sampling {
            meta::member(&mut all, "sampling", sampling);
        }
        if self.forms || self.urls {
            meta::member(&mut all, "elicitation", &modes);
        }
        all.push(b'}');
        client_to_legacy(revision, &meta::object(all))
    }
}

/// `{}` stands for forms.
fn takes_forms(elicitation: &RawValue) -> bool {
    is_empty(elicitation) || declares(elicitation, "form")
}

fn is_empty(object: &RawValue) -> bool {
    meta::members(object.get()).is_some_and(|members| members.is_empty())
}

fn declares(object: &RawValue, member: &str) -> bool {
    let members = meta::members(object.get()).unwrap_or_default();
    members.iter().any(|(name, _)| name == member)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_legacy_client_is_declared_in_modern_words() {
        let modern = |revision, declared: &str| text(client_to_modern(revision, &raw(declared)));
        let all = r#"{"experimental":{"x":1.0},"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{},"tasks":{"list":{}}}"#;
        assert_eq!(
            modern(Revision::V2025_03_26, all),
            r#"{"experimental":{"x":1.0},"roots":{},"sampling":{}}"#
        );
        assert_eq!(
            modern(Revision::V2025_06_18, all),
            r#"{"experimental":{"x":1.0},"roots":{},"sampling":{},"elicitation":{"form":{}}}"#
        );
        assert_eq!(
            modern(Revision::V2025_11_25, all),
            r#"{"experimental":{"x":1.0},"sampling":{"tools":{}},"roots":{},"elicitation":{"form":{}}}"#
        );
        assert_eq!(
            modern(Revision::V2025_11_25, r#"{"elicitation":{"url":{}}}"#),
            r#"{"elicitation":{"url":{}}}"#
        );
        assert_eq!(modern(Revision::V2025_11_25, "null"), "{}");
    }

    #[test]
    fn a_modern_client_is_declared_in_legacy_words() {
        let legacy = |revision, declared: &str| text(client_to_legacy(revision, &raw(declared)));
        let all = r#"{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"extensions":{"a/b":{}}}"#;
        assert_eq!(legacy(Revision::V2025_11_25, all), all);
        assert_eq!(
            legacy(Revision::V2025_06_18, all),
            r#"{"extensions":{"a/b":{}},"sampling":{},"elicitation":{}}"#
        );
        assert_eq!(
            legacy(Revision::V2024_11_05, all),
            r#"{"extensions":{"a/b":{}},"sampling":{}}"#
        );
        let urls = r#"{"elicitation":{"url":{}}}"#;
        assert_eq!(legacy(Revision::V2025_06_18, urls), "{}");
        assert_eq!(legacy(Revision::V2025_11_25, r#"{"tasks":{}}"#), "{}");
    }

    #[test]
    fn a_server_is_announced_with_what_the_revision_knows() {
        let all =
            raw(r#"{"tools":{"listChanged":true},"completions":{},"tasks":{},"vendor":[1.0]}"#);
        let announced = |revision| text(server_for(revision, &all));
        assert_eq!(announced(Revision::V2025_11_25), all.get());
        assert_eq!(
            announced(Revision::V2026_07_28),
            r#"{"tools":{"listChanged":true},"completions":{},"vendor":[1.0]}"#
        );
        assert_eq!(
            announced(Revision::V2024_11_05),
            r#"{"tools":{"listChanged":true},"vendor":[1.0]}"#
        );
    }

    #[test]
    fn what_is_declared_is_read_as_what_is_answered() {
        let all = Answers {
            roots: true,
            ..Answers::RELAYED
        };
        let forms = Answers {
            forms: true,
            ..Answers::default()
        };
        for answers in [all, forms, Answers::default(), Answers::RELAYED] {
            let declared = raw(&text(answers.declared(Revision::V2025_11_25)));
            assert_eq!(Answers::of(Revision::V2025_11_25, &declared), answers);
        }
        assert_eq!(
            text(all.declared(Revision::V2025_03_26)),
            r#"{"roots":{},"sampling":{}}"#
        );
        assert_eq!(
            text(Answers::default().declared(Revision::V2025_06_18)),
            "{}"
        );
    }

    proptest! {
        #[test]
        fn translation_never_adds_an_ability(
            from in 0_usize..4,
            declared in prop::sample::subsequence(
                vec![
                    r#""roots":{"listChanged":true}"#, r#""sampling":{"tools":{}}"#,
                    r#""elicitation":{"url":{}}"#, r#""tasks":{}"#, r#""x":[]"#,
                ],
                0..=5,
            ),
            forms: bool,
        ) {
            let mut object = format!("{{{}}}", declared.join(","));
            if forms {
                object = object.replace(r#"{"url":{}}"#, "{}");
            }
            let object = raw(&object);
            let revision = Revision::ALL[from];
            let before = Answers::of(revision, &object);
            let up = raw(&text(client_to_modern(revision, &object)));
            prop_assert_eq!(Answers::of(Revision::LATEST, &up).forms, before.forms);
            let modern = Answers::of(Revision::LATEST, &object);
            let down = raw(&text(client_to_legacy(revision, &object)));
            let down = Answers::of(revision, &down);
            prop_assert!(!down.forms || modern.forms);
            prop_assert!(!down.urls || modern.urls);
            prop_assert!(!down.sampling_tools || modern.sampling_tools);
            prop_assert_eq!((down.roots, down.sampling), (modern.roots, modern.sampling));
        }
    }
}

//! A [`Failure`] as `application/problem+json` (RFC 9457): the one rendering for every HTTP door.

use serde::Serialize;

use crate::{
    failure::{Failure, Issue, facts},
    quota::Limit,
};

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[Issue]>::is_empty")]
    errors: &'a [Issue],
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
}

/// The body. `type` is a relative reference to the page that this server has about the problem
/// (RFC 9457 §3.1.1 allows them).
pub fn render(failure: &Failure, request_id: &str) -> Vec<u8> {
    let facts = facts(failure.kind);
    let problem = Problem {
        r#type: format!("/errors/{}", facts.slug),
        title: facts.title,
        status: facts.status,
        detail: &failure.detail,
        request_id,
        errors: &failure.issues,
        retry_after: failure.retry_after,
        version: failure.version,
        limit: failure.level.as_ref().map(|level| level.limit),
        link: failure.link.as_deref(),
    };
    serde_json::to_vec(&problem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::failure::{Failure, Issue, Kind};

    #[test]
    fn a_problem_says_what_where_and_how_to_go_on() {
        let failure = Failure::invalid("The service `x`", vec![Issue::new("name", "is missing")]);
        let text = String::from_utf8(super::render(&failure, "r1")).unwrap();
        assert_eq!(
            text,
            r#"{"type":"/errors/invalid","title":"Invalid input","status":422,"detail":"The service `x` has 1 problem","request_id":"r1","errors":[{"path":"name","message":"is missing"}]}"#
        );
        let busy = Failure::new(Kind::Busy, "later").retry_after(3);
        assert!(
            String::from_utf8(super::render(&busy, "r"))
                .unwrap()
                .contains(r#""retry_after":3"#)
        );
        let stale = Failure::new(Kind::VersionMismatch, "changed").at_version(7);
        let text = String::from_utf8(super::render(&stale, "r")).unwrap();
        assert!(text.contains(r#""version":7"#), "{text}");
    }
}

//! Scopes: permissions by their names.

use vaxel_core::principal::{Permission, Permissions};

/// What clients of MCP need, and get when they ask for nothing.
pub const USUAL: [Permission; 2] = [Permission::McpRead, Permission::McpExecute];
/// The same as one text, as in challenges.
pub const USUAL_TEXT: &str = "mcp:read mcp:execute";
/// Longest text of scopes that is looked at, bytes.
const LONGEST: usize = 2_000;

/// None of the scopes that were asked for is one of this server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of these scopes is known here; scopes_supported of the metadata lists those that are"
)]
pub struct Unknown;

/// What a `scope` asks for (RFC 6749 §3.3). Without any it is [`USUAL`]; words of other servers, such as
/// `openid` or `offline_access`, are left out, which the answer says.
///
/// # Errors
/// [`Unknown`] when nothing is left.
pub fn read(scope: Option<&str>) -> Result<Permissions, Unknown> {
    let scope = scope.unwrap_or_default();
    if scope.len() > LONGEST {
        return Err(Unknown);
    }
    let mut words = scope.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        return Ok(Permissions::of(&USUAL));
    }
    let known: Permissions = words
        .filter_map(|word| word.parse::<Permission>().ok())
        .collect();
    if known.is_empty() {
        Err(Unknown)
    } else {
        Ok(known)
    }
}

/// The permissions as one text.
pub fn text(permissions: Permissions) -> String {
    let words: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_permissions_and_unknown_words_give_nothing() {
        assert_eq!(read(None), Ok(Permissions::of(&USUAL)));
        assert_eq!(read(Some(" ")), Ok(Permissions::of(&USUAL)));
        assert_eq!(
            text(read(Some("offline_access mcp:read")).unwrap()),
            "mcp:read"
        );
        assert_eq!(read(Some("openid profile")), Err(Unknown));
        assert_eq!(read(Some("mcp:read:own")), Err(Unknown));
        assert_eq!(read(Some(&"mcp:read ".repeat(1_000))), Err(Unknown));
        assert_eq!(text(Permissions::of(&USUAL)), USUAL_TEXT);
    }
}

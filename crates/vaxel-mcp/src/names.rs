//! Names on the federated endpoint: `service__tool`, in the letters and the length that every
//! client and model API takes. A name that has to be altered for that gets a suffix that is made
//! from its full form alone, so that it is the same on every run and on every node.

/// A name as clients of the federated endpoint see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// `[A-Za-z0-9_-]`, at most the asked length.
    pub name: String,
    /// It is not simply service, `__` and tool.
    pub altered: bool,
}

/// Length of the suffix with its separator.
const SUFFIX: usize = 9;

/// The exposed name of `tool` of `service`, at most `max` characters (at least 24 are used).
///
/// Clean names cannot collide: a service name holds no `__` and ends in no `_`, so that the first
/// `__` is the joint. Altered ones do so only if 40 bits of hash do.
pub fn exposed(service: &str, tool: &str, max: usize) -> Exposed {
    let full = format!("{service}__{tool}");
    let clean = full.bytes().all(allowed);
    if clean && full.len() <= max.max(24) {
        return Exposed {
            name: full,
            altered: false,
        };
    }
    let kept: String = full
        .chars()
        .map(|letter| match u8::try_from(letter) {
            Ok(byte) if allowed(byte) => letter,
            _ => '_',
        })
        .take(max.max(24) - SUFFIX)
        .collect();
    Exposed {
        name: format!("{kept}_{}", suffix(&full)),
        altered: true,
    }
}

const fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Eight characters of base 32 (RFC 4648 §6, lower case) from the 64-bit FNV-1a hash of the full
/// name. The choice is for ever: clients store these names.
#[expect(
    clippy::cast_possible_truncation,
    reason = "five bits are taken of each"
)]
fn suffix(full: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = full.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..8)
        .map(|index| char::from(ALPHABET[usize::from((hash >> (index * 5)) as u8 & 31)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names that clients have stored: this table may grow, its lines may never change.
    #[test]
    fn altered_names_are_the_same_for_ever() {
        for (service, tool, max, name) in [
            ("files", "läs.fil", 50, "files__l_s_fil_hrw752ba"),
            ("files", "", 50, "files__"),
            (
                "github",
                "search/issues",
                50,
                "github__search_issues_fqwpmzev",
            ),
            (
                "a-service-with-quite-a-long-name",
                "a_tool_with_quite_a_long_name",
                50,
                "a-service-with-quite-a-long-name__a_tool__wuvubhn7",
            ),
            (
                "a-service-with-quite-a-long-name",
                "a_tool",
                10,
                "a-service-with-_tdlw7l3h",
            ),
            ("x", "日本語", 50, "x______xpopy47k"),
        ] {
            assert_eq!(exposed(service, tool, max).name, name);
        }
    }

    #[test]
    fn clean_names_stay_and_others_are_the_same_for_ever() {
        assert_eq!(exposed("files", "read", 50).name, "files__read");
        let altered = exposed("files", "läs.fil", 50);
        assert_eq!(altered.name, "files__l_s_fil_hrw752ba");
        assert!(altered.altered);
        assert_ne!(exposed("files", "läs-fil", 50).name, altered.name);
    }

    proptest! {
        #[test]
        fn every_exposed_name_is_one_that_clients_take(
            service in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
            tool in ".{0,200}",
            max in 0_usize..80,
        ) {
            let exposed = exposed(&service, &tool, max);
            prop_assert!(exposed.name.len() <= max.max(24));
            prop_assert!(exposed.name.bytes().all(allowed));
            prop_assert_eq!(exposed.altered, exposed.name != format!("{service}__{tool}"));
        }

        #[test]
        fn short_clean_names_are_unchanged(service in "[a-z0-9]{1,10}", tool in "[A-Za-z0-9_-]{0,38}") {
            let exposed = exposed(&service, &tool, 50);
            prop_assert_eq!(exposed, Exposed { name: format!("{service}__{tool}"), altered: false });
        }

        #[test]
        fn names_that_differ_stay_different(
            tools in proptest::collection::hash_set("(long_common_beginning_of_many_tools_)?[a-zA-Z._/ ä]{0,12}", 2..60),
            max in 24_usize..64,
        ) {
            let names: std::collections::HashSet<String> =
                tools.iter().map(|tool| exposed("service", tool, max).name).collect();
            prop_assert_eq!(names.len(), tools.len());
        }
    }
}

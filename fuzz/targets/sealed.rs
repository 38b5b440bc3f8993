//! Sealed values: what was sealed opens in its own context and unchanged, nothing else opens.

use std::sync::LazyLock;

use vaxel_auth::seal::{RootKey, Sealer};

static ROOT: LazyLock<RootKey> = LazyLock::new(RootKey::ephemeral);
static ONE: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(&ROOT, "one"));
static OTHER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(&ROOT, "other"));

pub(crate) fn check(data: &[u8]) {
    assert!(ONE.open(b"context", data).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(ONE.open_text(b"context", text).is_err());
    }
    let Some((&[at, with, cut], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let (context, plain) = rest.split_at(usize::from(cut).min(rest.len()));
    let sealed = ONE.seal(context, plain);
    assert_eq!(ONE.open(context, &sealed).unwrap().expose(), plain);
    assert!(OTHER.open(context, &sealed).is_err(), "another purpose");
    let elsewhere = [context, b"x"].concat();
    assert!(ONE.open(&elsewhere, &sealed).is_err(), "another context");
    let mut changed = sealed.clone();
    let at = usize::from(at) % changed.len();
    changed[at] ^= with.max(1);
    assert!(ONE.open(context, &changed).is_err(), "changed at {at}");
    assert!(ONE.open(context, &sealed[..at]).is_err(), "cut at {at}");
    let text = ONE.seal_text(context, plain);
    assert_eq!(ONE.open_text(context, &text).unwrap().expose(), plain);
}

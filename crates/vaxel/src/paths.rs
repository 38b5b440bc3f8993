//! Where things are on this machine, from the environment of the process: the one place that reads
//! it.

use std::{collections::BTreeMap, path::PathBuf};

/// The environment, as text.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The data directory: what was given, else `$VAXEL_DATA_DIR`, else `vaxel` under the XDG data home.
pub(crate) fn data_dir(given: Option<PathBuf>, env: &BTreeMap<String, String>) -> PathBuf {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    given
        .or_else(|| set("VAXEL_DATA_DIR").map(PathBuf::from))
        .unwrap_or_else(|| {
            let home = || PathBuf::from(set("HOME").map_or("/var/lib", |home| home));
            let data =
                set("XDG_DATA_HOME").map_or_else(|| home().join(".local/share"), PathBuf::from);
            data.join("vaxel")
        })
}

/// Where programs keep the configuration of this user: `$XDG_CONFIG_HOME`, else `~/.config`. `None`
/// for a user without a home.
pub(crate) fn config_home(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")))
}

/// The home directory.
pub(crate) fn home(env: &BTreeMap<String, String>) -> PathBuf {
    env.get("HOME")
        .map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The variables that every child gets: what programs need to find each other and the network, and
/// nothing that belongs to Vaxel.
pub(crate) fn base_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const KEPT: &[&str] = &[
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TERM",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
    ];
    let kept =
        |name: &str| KEPT.contains(&name) || name.starts_with("LC_") || name.starts_with("XDG_");
    env.iter()
        .filter(|(name, _)| kept(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

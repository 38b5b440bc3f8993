//! What a catalog says about its server, and whether two of them say the same.

use vaxel_core::catalog::{Catalog, Item};

/// What the server calls itself: name and version, unverified.
pub(super) fn server_name(catalog: &Catalog) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Server {
        name: String,
        #[serde(default)]
        version: String,
    }
    let server: Server = serde_json::from_str(catalog.server_info.get()).ok()?;
    Some(
        format!("{} {}", server.name, server.version)
            .trim_end()
            .to_owned(),
    )
}

/// Whether both offer the same, whenever they were read.
pub(super) fn same_offer(left: &Catalog, right: &Catalog) -> bool {
    let same = |left: &Item, right: &Item| {
        left.key == right.key && left.definition.get() == right.definition.get()
    };
    let same_list = |left: &[Item], right: &[Item]| {
        left.len() == right.len()
            && left
                .iter()
                .zip(right)
                .all(|(left, right)| same(left, right))
    };
    left.revision == right.revision
        && left.instructions == right.instructions
        && left.capabilities.get() == right.capabilities.get()
        && left.server_info.get() == right.server_info.get()
        && same_list(&left.tools, &right.tools)
        && same_list(&left.prompts, &right.prompts)
        && same_list(&left.resources, &right.resources)
        && same_list(&left.templates, &right.templates)
}

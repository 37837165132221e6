//! Which build this is.

/// Version of the release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit: what the host that built or runs us says, else what the build found.
pub(crate) fn id() -> String {
    ["RENDER_GIT_COMMIT", "RAILWAY_GIT_COMMIT_SHA"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().filter(|commit| is_commit(commit)))
        .unwrap_or_else(|| env!("LONGHOUSE_BUILD_ID").to_owned())
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

//! `/studio/…`: the pages as `web/` was built, from inside of the binary.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

use crate::Error;

/// Where they are served.
pub(crate) const PATH: &str = "/studio";
/// The page behind every address.
const SHELL: &str = "index.html";
/// Below here, a file's name changes with its content.
const IMMUTABLE: &str = "_app/immutable/";

/// What a build without the pages says.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Longhouse Studio</title>\
<h1>The Studio is not in this build</h1>\
<p>Its pages are made by Node.js, which a plain <code>cargo build</code> does not need. Run \
<code>cargo xtask dev</code>: it makes the pages, builds Longhouse with them and starts it.</p></html>";

#[derive(RustEmbed)]
#[folder = "../../web/build/site"]
#[allow_missing = true]
struct Site;

/// Whether this binary holds the pages.
pub fn built() -> bool {
    shell().is_some()
}

fn shell() -> Option<rust_embed::EmbeddedFile> {
    Site::get(SHELL)
}

/// `/studio/{file}`, else the page that decides itself what the address shows.
pub(crate) async fn file(path: Option<Path<String>>, headers: HeaderMap) -> Response {
    answer(path.as_ref().map_or("", |Path(path)| path), &headers)
}

/// `/` of a server that has nothing else to show there.
pub(crate) async fn home() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, PATH), (CACHE_CONTROL, "no-store")]).into_response()
}

fn answer(path: &str, headers: &HeaderMap) -> Response {
    let name = path.trim_matches('/');
    // Compressed copies are another form of a file, not files of their own.
    let wanted = !name.is_empty() && !name.ends_with(".br") && !name.ends_with(".gz");
    if wanted && let Some(found) = Site::get(name) {
        return embedded(name, &found, headers);
    }
    if name.starts_with("v1/") || name == "v1" {
        return Error::NotReached.into_response();
    }
    if name.starts_with("_app/") {
        // A page of an earlier build asks for what is gone: an HTML answer would confuse it more.
        let body = "this file is not of this build: load the page again\n";
        return (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")], body).into_response();
    }
    match shell() {
        Some(found) => embedded(SHELL, &found, headers),
        None => {
            let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            (StatusCode::SERVICE_UNAVAILABLE, headers, NOT_BUILT).into_response()
        }
    }
}

fn embedded(name: &str, found: &rust_embed::EmbeddedFile, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", STANDARD.encode(&found.metadata.sha256_hash()[..18]));
    let cache = match name.starts_with(IMMUTABLE) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let mut answer = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        answer.insert(name, HeaderValue::from_str(value).expect("visible ASCII"));
    };
    put(CACHE_CONTROL, cache);
    put(ETAG, &tag);
    put(VARY, "accept-encoding");
    if name == SHELL {
        put(CONTENT_SECURITY_POLICY, &POLICY);
    }
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, answer).into_response();
    }
    put(CONTENT_TYPE, kind(name));
    let compressed = ["br", "gz"].into_iter().find_map(|form| {
        let coding = if form == "gz" { "gzip" } else { form };
        let copy = accepts(headers, coding).then(|| Site::get(&format!("{name}.{form}"))).flatten()?;
        Some((coding, copy))
    });
    if let Some((coding, _)) = &compressed {
        put(CONTENT_ENCODING, coding);
    }
    let data = compressed.map_or_else(|| found.data.clone(), |(_, copy)| copy.data);
    (answer, data.into_owned()).into_response()
}

/// Whether the client takes a coding. A weight of zero refuses it.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0));
        name.trim().eq_ignore_ascii_case(coding) && !refused
    })
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The one style attribute of the pages: SvelteKit hides with it what tells screen readers of a new page.
const ANNOUNCER: &str = "'unsafe-hashes' 'sha256-S8qMpvofolR8Mpjy4kQvEm7m1q8clzU4dfDH0AmvZjo='";

/// Everything from this origin and nothing else. `blob:` are files that the page has fetched itself, to show them.
/// Inline scripts are those of the built page, by their hashes.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let shell = shell().map(|found| String::from_utf8_lossy(&found.data).into_owned());
    let hashes: String = inline_scripts(shell.as_deref().unwrap_or_default())
        .map(|script| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script))))
        .collect();
    format!(
        "default-src 'none'; script-src 'self'{hashes}; style-src 'self' {ANNOUNCER}; img-src 'self' blob: data:; \
         media-src 'self' blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
});

fn inline_scripts(html: &str) -> impl Iterator<Item = &str> {
    html.split("<script>").skip(1).filter_map(|rest| rest.split_once("</script>").map(|(script, _)| script))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gzip, br", "br", true)]
    #[case("gzip;q=1.0, BR;q=0.5", "br", true)]
    #[case("br;q=0, gzip", "br", false)]
    #[case("br; q=0.000", "br", false)]
    #[case("brotli", "br", false)]
    #[case("", "gzip", false)]
    fn codings(#[case] header: &'static str, #[case] coding: &str, #[case] expected: bool) {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(header))]);
        assert_eq!(accepts(&headers, coding), expected);
    }

    #[test]
    fn only_inline_scripts_are_hashed() {
        let html = "<script src=\"a.js\"></script><script>one</script><p><script>two</script>";
        assert_eq!(inline_scripts(html).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_file_of_another_build_is_not_a_page() {
        let answer = answer("_app/immutable/gone.js", &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    }
}

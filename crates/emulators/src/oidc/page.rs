//! Pages that a browser sees.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::Person;

/// Escapes text for HTML, also in quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>:root{{color-scheme:light dark}}body{{font:1rem system-ui;margin:3rem auto;max-width:24rem;\
         padding:0 1rem}}button{{font:inherit;display:block;width:100%;padding:.75rem;margin:.5rem 0}}</style>\
         </head><body><main><h1>{title}</h1>{body}</main></body></html>"
    ))
}

/// The choice of who signs in.
pub(super) fn choose(
    site: &str,
    client: &str,
    scopes: &[String],
    people: &[Person],
    ticket: &str,
) -> Response {
    let buttons: String = people
        .iter()
        .map(|person| {
            format!(
                "<button name=\"sub\" value=\"{}\">Continue as {} ({})</button>",
                escape(&person.sub),
                escape(&person.name),
                escape(&person.email)
            )
        })
        .collect();
    let body = format!(
        "<p><strong>{}</strong> wants to know: {}.</p><form method=\"post\">\
         <input type=\"hidden\" name=\"ticket\" value=\"{}\">{buttons}\
         <button name=\"deny\" value=\"1\">Do not allow</button></form>",
        escape(client),
        escape(&scopes.join(", ")),
        escape(ticket),
    );
    page(&escape(site), &body).into_response()
}

/// A mistake that must not be reported to an address that nobody has checked.
pub(super) fn refused(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, page("Refused", &format!("<p>{}</p>", escape(message)))).into_response()
}

/// `response_mode=form_post`: a form for the client.
pub(super) fn form_post(action: &str, fields: &[(&str, String)]) -> Response {
    let inputs: String = fields
        .iter()
        .map(|(name, value)| {
            format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
        })
        .collect();
    let body = format!(
        "<form method=\"post\" action=\"{}\">{inputs}<button>Back to the application</button></form>",
        escape(action)
    );
    page("Signed in", &body).into_response()
}

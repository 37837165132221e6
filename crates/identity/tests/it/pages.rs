//! The pages: forms that do what the endpoints do, and only when they come from themselves.

use longhouse_identity::service::ProviderOptions;
use reqwest::{Client, Response, redirect::Policy};
use rstest::rstest;
use serde_json::json;

use crate::harness::TestAuth;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A browser with one page open.
struct Browser {
    client: Client,
    cookie: String,
    csrf: String,
    page: String,
}

impl Browser {
    async fn open(auth: &TestAuth, path: &str) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let response = client.get(auth.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe-inline"), "{policy}");
        let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        // The renderer escapes slashes too.
        let page = response.text().await.unwrap().replace("&#x2f;", "/");
        assert!(!page.contains("<script"));
        let csrf = hidden(&page, "csrf");
        Self { client, cookie, csrf, page }
    }

    async fn submit(&self, auth: &TestAuth, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut form = vec![("csrf", self.csrf.as_str())];
        form.extend_from_slice(fields);
        self.client.post(auth.url(path)).header("cookie", &self.cookie).form(&form).send().await.unwrap()
    }
}

fn hidden(page: &str, name: &str) -> String {
    let rest = page
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap_or_else(|| panic!("no {name} in {page}"))
        .1;
    rest.split('"').next().unwrap().to_owned()
}

fn location(response: &Response) -> String {
    assert_eq!(response.status(), 303);
    response.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_form_signs_in_and_ends_at_the_app() {
    let auth = TestAuth::start().await;
    auth.signed_up("ada@example.com").await;
    let browser = Browser::open(&auth, "/sign-in?redirect_to=http://localhost:3000/deep?x=1").await;
    let carried = hidden(&browser.page, "redirect_to");
    assert_eq!(carried, "http://localhost:3000/deep?x=1");
    let fields = [
        ("email", "ada@example.com"),
        ("password", "correct horse"),
        ("redirect_to", &carried),
        ("by", "password"),
    ];
    let response = browser.submit(&auth, "/sign-in", &fields).await;
    let location = location(&response);
    assert!(location.starts_with("http://localhost:3000/deep?x=1#access_token="), "{location}");

    let wrong = [("email", "ada@example.com"), ("password", "\"><b>wrong"), ("by", "password")];
    let response = browser.submit(&auth, "/sign-in", &wrong).await;
    assert_eq!(response.status(), 400);
    let page = response.text().await.unwrap();
    assert!(page.contains("role=\"alert\">Invalid login credentials<"), "{page}");
    assert!(
        page.contains("value=\"ada@example.com\"") && !page.contains("wrong"),
        "the password is not repeated"
    );
}

#[tokio::test]
async fn apps_with_a_challenge_get_a_code() {
    let auth = TestAuth::start().await;
    auth.signed_up("ada@example.com").await;
    let browser =
        Browser::open(&auth, &format!("/sign-in?code_challenge={CHALLENGE}&code_challenge_method=s256"))
            .await;
    let fields = [
        ("email", "ada@example.com"),
        ("password", "correct horse"),
        ("by", "password"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "s256"),
    ];
    let location = location(&browser.submit(&auth, "/sign-in", &fields).await);
    let code = location.split_once("code=").unwrap().1;
    let body = json!({ "auth_code": code, "code_verifier": VERIFIER });
    let session = auth.post("/token?grant_type=pkce", body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(auth.claims(&session.body)["amr"][0]["method"], "password");
    let sessions: i64 = auth.sql.query_one("select count(*) from auth.sessions", &[]).await.unwrap().get(0);
    assert_eq!(sessions, 2, "that of signing up, and one of signing in");
}

#[tokio::test]
async fn signing_up_and_recovering_send_mail_without_telling_who_has_an_account() {
    let auth = TestAuth::start().await;
    let browser = Browser::open(&auth, "/sign-up").await;
    let fields = [("email", "ada@example.com"), ("password", "correct horse")];
    let first = browser.submit(&auth, "/sign-up", &fields).await;
    assert_eq!(first.status(), 200);
    assert!(first.text().await.unwrap().contains("Check your mail"));
    let mail = auth.last_mail("ada@example.com").await;
    assert_eq!(mail.kind, "confirmation");
    assert!(auth.get(mail.link()).await.in_fragment("access_token").is_some());

    let weak = browser.submit(&auth, "/sign-up", &[("email", "b@example.com"), ("password", "short")]).await;
    assert_eq!(weak.status(), 422);
    assert!(weak.text().await.unwrap().contains("at least 6 characters"));

    for (path, extra) in [("/recover/form", ("x", "")), ("/sign-in", ("by", "link"))] {
        let known = browser.submit(&auth, path, &[("email", "ada@example.com"), extra]).await;
        let unknown = browser.submit(&auth, path, &[("email", "nobody@example.com"), extra]).await;
        assert_eq!(
            (known.status(), unknown.status()),
            (reqwest::StatusCode::OK, reqwest::StatusCode::OK),
            "{path}"
        );
        assert_eq!(known.text().await.unwrap(), unknown.text().await.unwrap());
    }
    assert_eq!(auth.mails("nobody@example.com").await, 0);
    assert_eq!(auth.mails("ada@example.com").await, 3);
}

#[rstest]
#[case::no_cookie(Some(""), None, None)]
#[case::other_token(None, Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), None)]
#[case::other_site(None, None, Some("https://evil.example"))]
#[tokio::test]
async fn forms_of_other_sites_are_refused(
    #[case] cookie: Option<&str>,
    #[case] csrf: Option<&str>,
    #[case] origin: Option<&str>,
) {
    let auth = TestAuth::start().await;
    auth.signed_up("ada@example.com").await;
    let browser = Browser::open(&auth, "/sign-in").await;
    let form = [
        ("csrf", csrf.unwrap_or(&browser.csrf)),
        ("email", "ada@example.com"),
        ("password", "correct horse"),
        ("by", "password"),
    ];
    let mut request = browser.client.post(auth.url("/sign-in")).form(&form);
    request = request.header("cookie", cookie.unwrap_or(&browser.cookie));
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(response.text().await.unwrap().contains("role=\"alert\""));
}

#[tokio::test]
async fn pages_offer_what_the_project_has() {
    let auth = TestAuth::with(|options| {
        let provider = ProviderOptions {
            client_ids: vec!["x".into()],
            secret: None,
            url: None,
            redirect_uri: None,
            email_optional: false,
            skip_nonce_check: false,
        };
        options.providers.insert("github".into(), provider);
        options.disable_signup = true;
    })
    .await;
    let page = Browser::open(&auth, "/sign-in?redirect_to=https://evil.example/").await.page;
    assert!(page.contains("Continue with GitHub"));
    assert!(page.contains("/auth/v1/authorize?provider=github&amp;redirect_to="), "{page}");
    assert!(!page.contains("Create an account"));
    let response = reqwest::get(auth.url("/sign-up")).await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://localhost:3000;"), "{policy}");
    assert!(response.text().await.unwrap().contains("New accounts are not given out"));
}

#[tokio::test]
async fn errors_are_readable_where_there_is_no_way_back() {
    let auth = TestAuth::start().await;
    let headers = [("accept", "text/html,application/xhtml+xml")];
    let answer = auth.send(reqwest::Method::GET, "/authorize?provider=<b>", None, &headers, None).await;
    assert_eq!(answer.status, 400);
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(answer.text.contains("Provider &lt;b&gt; could not be found"), "{}", answer.text);
    let answer = auth
        .get("/verify/result?error=access_denied&error_code=otp_expired&error_description=Call+this+number")
        .await;
    assert!(answer.text.contains("This link has expired") && !answer.text.contains("Call this"));
    assert!(auth.get("/verify/result").await.text.contains("That worked"));
}
